//! The few foreign calls, each with its reason; the only unsafe code of the program.
#![allow(unsafe_code)]

/// Makes the C library resolve names from `/etc/hosts` and DNS only.
///
/// In a static binary glibc would otherwise load the host's name-service plug-ins named in
/// `/etc/nsswitch.conf`, and with them the host's libc, into this process, and crash. Must run
/// before the first name is resolved and before any other thread exists.
pub fn use_static_name_service() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn __nss_configure_lookup(
                database: *const std::ffi::c_char,
                services: *const std::ffi::c_char,
            ) -> std::ffi::c_int;
        }
        // SAFETY: both arguments are NUL-terminated constants that glibc parses and does not keep,
        // and main calls this before it starts a thread.
        let failed = unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
        debug_assert_eq!(failed, 0);
    }
}
