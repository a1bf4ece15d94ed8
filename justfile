# `just check` is what CI runs.
check:
    tests/run

# Licences, advisories, duplicate crates. Needs `cargo install cargo-deny`.
deny:
    cargo deny check

bench:
    cargo bench -p schoolgate-config -p schoolgate-proxy

load *args:
    tests/load/run {{args}}
