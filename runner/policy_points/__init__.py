"""Decision points in other languages than runner's rules: Cedar and Rego, each an extra."""
