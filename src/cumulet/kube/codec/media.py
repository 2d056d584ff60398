"""Media types of bodies besides JSON's."""

YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
#: Media types whose bodies are parsed as YAML.
YAML_TYPES = ("application/yaml", "application/apply-patch+yaml", "application/apply-patch")
