//! OCI seccomp profiles to BPF.
