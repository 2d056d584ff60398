"""Binds claims to volumes, and releases volumes (`pkg/controller/volume/persistentvolume`).

Provisioners, which are programs of their own, create the volumes of classes and delete them after their release.
"""

from cumulet.controllers.volumebinding.controller import VolumeBindingController as VolumeBindingController
