"""What the end-to-end tests stand on: daemons, clusters, clients of the API, images, and a check for what was left behind.

A test asks for a `cluster` (conftest.py), starts a coordinator and agents in it, and drives them through
`framework.Framework` (JSON or protobuf) or `web` (any request). When the test ends the cluster is torn down and
`leaks` tells what is still there: processes, mounts, cgroups, files.
"""
