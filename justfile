# Everyday commands. `just` alone lists them.

export CARGO_TARGET_DIR := env("CARGO_TARGET_DIR", cache_directory() / "tepui/target")

_list:
    @just --list

# All tests, as CI runs them
test:
    ./tests/run

# Tests of one crate, such as `just unit tepui-api`
unit CRATE:
    cargo nextest run --cargo-profile checked -p {{CRATE}}

# Formatting and lints
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# Tests in a virtual machine with cgroup v2, such as `just vm isolation/test_limits.py -k memory` (needs root)
vm *ARGS:
    ./tests/vm/run {{ARGS}}

# A cluster of real processes under faults, such as `just chaos --minutes 30 --seed 7` (needs root)
chaos *ARGS:
    ./tests/chaos/run {{ARGS}}

# The cluster of the Vagrantfile in emulated machines, such as `just vagrant --full` (needs root)
vagrant *ARGS:
    ./tests/vagrant/run {{ARGS}}

# Latency and throughput beside the floor (needs root)
bench *ARGS:
    ./bench/run {{ARGS}}
