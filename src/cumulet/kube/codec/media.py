"""Media types of bodies and answers beside JSON's."""

YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
#: Whose bodies are read as YAML.
YAML_TYPES = ("application/yaml", "application/apply-patch+yaml", "application/apply-patch")
