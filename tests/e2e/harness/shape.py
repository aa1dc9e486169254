"""The shape of JSON (names and types, no values), and how two shapes differ.

An observation has the type's name where a value was, the first element of each list, and `"{}"` where it was cut off.
"""

import fnmatch


def type_name(value):
    if value is None:
        return "null"
    return {bool: "bool", int: "int", float: "float", str: "str", dict: "{}", list: "[]"}[type(value)]


def differences(observed, value, path=""):
    """Lines `path: what is different`; empty when the value has the observed shape."""
    if observed == "{}" and isinstance(value, dict):
        return []
    if isinstance(observed, dict):
        if not isinstance(value, dict):
            return [f"{path}: object expected, not {type_name(value)}"]
        found = [f"{path}.{key}: missing" for key in observed if key not in value]
        found += [f"{path}.{key}: extra ({type_name(value[key])})" for key in value if key not in observed]
        for key in observed.keys() & value.keys():
            found += differences(observed[key], value[key], f"{path}.{key}")
        return sorted(found)
    if isinstance(observed, list):
        if not isinstance(value, list):
            return [f"{path}: list expected, not {type_name(value)}"]
        if not observed:
            return []
        if not value:
            return [f"{path}: empty list"]
        # An observation shows one element of several kinds (resources); the one of ours that is nearest counts.
        return min((differences(observed[0], element, f"{path}[]") for element in value), key=len)
    if type_name(value) != observed:
        return [f"{path}: {observed} expected, not {type_name(value)}"]
    return []


def unexplained(found, allowed):
    """Differences without a reason. `allowed` is a dict of patterns of lines to reasons."""
    return [line for line in found if not any(fnmatch.fnmatchcase(line, pattern) for pattern in allowed)]
