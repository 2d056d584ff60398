"""The main job, walked step by step with the commands that a user would type, each shown with what it printed.

Nothing here calls a room: every step runs `cumulet`, kubectl, docker or buildah, and curl, and looks at what came
out. The first thing that is not as it should be stops the walk.
"""
