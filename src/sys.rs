//! Calls to the C library, OpenSSL and librdkafka that have no safe wrapper: all unsafe code of the
//! program.
//!
//! | called | for |
//! |---|---|
//! | the C library | a name service without plug-ins, the limit of open files, the boot clock, Ctrl-Z |
//! | OpenSSL | an end of the process without clean-up, and a test for thread support |
//! | librdkafka | topic ids, rights, group members, property names, log ends, commit metadata, tokens |
//!
//! The public functions take and return plain values. Every object of librdkafka is destroyed on every
//! path.
#![allow(unsafe_code)]

mod brokers;
mod describe;
mod group;
mod topic_id;

use std::ffi::{CStr, CString, c_char, c_int};

use rdkafka::TopicPartitionList;
use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as rdsys;

pub use brokers::{Brokers, brokers};
pub use describe::{
    Operation, Rights, TopicError, TopicFacts, topic_facts, topic_facts_and_rights,
};
pub use group::{Members, MembersError, group_members, group_rights};
pub use topic_id::TopicId;

/// Makes the C library resolve names from `/etc/hosts` and DNS only.
///
/// Otherwise glibc in a static binary would load the plug-ins that `/etc/nsswitch.conf` names. They
/// bring the host's own libc into the process, which then crashes. This function must run before the
/// first name is resolved and before any other thread exists.
pub fn use_static_name_service() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
        }
        // SAFETY: both arguments are NUL-terminated constants. glibc parses them and does not keep
        // them. main calls this function before it starts a thread.
        let failed = unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
        debug_assert_eq!(failed, 0);
    }
}

/// Returns the time since the host started, in milliseconds. On Linux this includes time asleep.
pub fn boot_ms() -> i64 {
    #[cfg(target_os = "linux")]
    const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes one value, which outlives it. Both clocks exist on their systems.
    let failed = unsafe { libc::clock_gettime(CLOCK, &raw mut time) };
    debug_assert_eq!(failed, 0);
    time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
}

/// Keeps OpenSSL from freeing its memory when the process ends.
///
/// Threads of librdkafka may still close connections at that time, and would use freed memory. This
/// function must run before OpenSSL is used for the first time.
pub fn keep_openssl_at_exit() {
    const OPENSSL_INIT_NO_ATEXIT: u64 = 0x0008_0000;
    unsafe extern "C" {
        fn OPENSSL_init_crypto(options: u64, settings: *const std::ffi::c_void) -> c_int;
    }
    // SAFETY: OpenSSL documents this as its first call, and a null pointer for no settings.
    let done = unsafe { OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, std::ptr::null()) };
    debug_assert_eq!(done, 1);
}

/// Tells whether OpenSSL was built with thread support.
///
/// Without it the locks of OpenSSL do nothing, and two connections corrupt memory.
/// `.cargo/config.toml` explains how such a build comes about.
pub fn openssl_knows_threads() -> bool {
    unsafe extern "C" {
        fn CRYPTO_THREAD_get_current_id() -> libc::pthread_t;
    }
    // SAFETY: the function takes no arguments. It returns the id of the thread, or 0 without thread
    // support.
    unsafe { CRYPTO_THREAD_get_current_id() != 0 }
}

/// Raises the limit of open files to the maximum that the host allows.
///
/// The usual limit of 1,024 is lower than the number of connections that the server accepts, so stalled
/// clients could use up all files.
pub fn raise_open_files() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls read or write only this struct, which outlives them.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
        }
    };
    if !raised {
        tracing::debug!("failed to raise the limit of open files");
    }
}

/// Returns the current limit of open files, and the limit that it can be raised to.
pub fn open_files() -> Option<(u64, u64)> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call writes only this struct, which outlives it.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 };
    known.then_some((limit.rlim_cur, limit.rlim_max))
}

/// Returns the names of librdkafka's properties that have a default value, for suggestions.
pub fn kafka_properties() -> Vec<String> {
    let mut out = Vec::new();
    // SAFETY: both objects are created, read and destroyed here. Each dump is an array of `count`
    // NUL-terminated strings, with names and values in turn. It is freed with the same count.
    unsafe {
        let global = rdsys::rd_kafka_conf_new();
        let topic = rdsys::rd_kafka_topic_conf_new();
        let mut count = 0;
        let dump = rdsys::rd_kafka_conf_dump(global, &raw mut count);
        copy_names(dump, count, &mut out);
        rdsys::rd_kafka_conf_dump_free(dump, count);
        let dump = rdsys::rd_kafka_topic_conf_dump(topic, &raw mut count);
        copy_names(dump, count, &mut out);
        rdsys::rd_kafka_conf_dump_free(dump, count);
        rdsys::rd_kafka_topic_conf_destroy(topic);
        rdsys::rd_kafka_conf_destroy(global);
    }
    out
}

/// Copies every second string of a dump: the names.
///
/// # Safety
/// `dump` is an array of `count` NUL-terminated strings.
unsafe fn copy_names(dump: *mut *const c_char, count: usize, out: &mut Vec<String>) {
    for at in (0..count).step_by(2) {
        // SAFETY: the caller guarantees it.
        out.push(unsafe { copy_text(*dump.add(at)) });
    }
}

/// Returns the end of a partition's log as of the last fetch; `None` before the first fetch.
///
/// The function sends no request. The safe wrapper has only a call that sends one.
pub fn known_log_end<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partition: i32,
) -> Option<i64> {
    let name = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client is live while it is borrowed. The call reads the NUL-terminated name and
    // writes the two numbers, which outlive it.
    let error = unsafe {
        rdsys::rd_kafka_get_watermark_offsets(
            client.native_ptr(),
            name.as_ptr(),
            partition,
            &raw mut low,
            &raw mut high,
        )
    };
    let known = error == rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0;
    known.then_some(high)
}

/// Stops this process as Ctrl-Z does, and returns when the process continues.
///
/// The live screen catches that signal to restore the terminal first. This function raises the signal
/// again with its default effect. So the system still ignores it if no shell could continue the process.
pub fn stop_here() {
    // SAFETY: both structs are plain data and outlive the calls. The former handler is restored.
    unsafe {
        let mut default: libc::sigaction = std::mem::zeroed();
        let mut former: libc::sigaction = std::mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        if libc::sigaction(libc::SIGTSTP, &raw const default, &raw mut former) == 0 {
            libc::raise(libc::SIGTSTP);
            libc::sigaction(libc::SIGTSTP, &raw const former, std::ptr::null_mut());
        }
    }
}

/// Stops the process group of this process. The live screen calls it, because a terminal in raw mode
/// does not turn Ctrl-Z into a signal.
pub fn stop_job() {
    // SAFETY: the call takes two numbers. 0 means the own process group.
    let sent = unsafe { libc::kill(0, libc::SIGTSTP) };
    debug_assert_eq!(sent, 0);
}

/// The signals of Ctrl-Z and of `fg`.
pub const STOP_AND_GO: [i32; 2] = [libc::SIGTSTP, libc::SIGCONT];

/// Gives a client a token for SASL/OAUTHBEARER that expires at `end_ms`, in Unix milliseconds.
///
/// The safe wrapper gives tokens only to clients whose callbacks it serves. An admin client is not one
/// of them.
///
/// # Errors
/// The message of librdkafka, if the client uses another login or the token has expired.
pub fn set_token<C: ClientContext>(
    client: &Client<C>,
    token: &str,
    end_ms: i64,
) -> Result<(), String> {
    let token = CString::new(token).map_err(|e| e.to_string())?;
    let mut text: [c_char; 256] = [0; 256];
    // SAFETY: the client is live. librdkafka copies the NUL-terminated texts. There are no extensions.
    // `text` is writable for the given length.
    let error = unsafe {
        rdsys::rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            token.as_ptr(),
            end_ms,
            c"citystream".as_ptr(),
            std::ptr::null_mut(),
            0,
            text.as_mut_ptr(),
            text.len(),
        )
    };
    if error == rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    // SAFETY: librdkafka has written a NUL-terminated text.
    Err(unsafe { copy_text(text.as_ptr()) })
}

/// Returns the metadata of a partition's committed offset as bytes; empty if there is none.
///
/// The safe wrapper panics on metadata that is not UTF-8, and any tool can commit such metadata to the
/// group.
pub fn commit_metadata(list: &TopicPartitionList, topic: &str, partition: i32) -> Vec<u8> {
    let Ok(topic) = CString::new(topic) else {
        return Vec::new();
    };
    // SAFETY: `list` owns a live list, and its elements live as long. Metadata that is not null points
    // to as many bytes as its size says. They are copied here.
    unsafe {
        let found =
            rdsys::rd_kafka_topic_partition_list_find(list.ptr(), topic.as_ptr(), partition);
        if found.is_null() || (*found).metadata.is_null() {
            return Vec::new();
        }
        let bytes = (*found).metadata.cast::<u8>();
        std::slice::from_raw_parts(bytes, (*found).metadata_size).to_vec()
    }
}

/// Copies a C string. Returns "" for null.
///
/// # Safety
/// `text` is null or NUL-terminated.
unsafe fn copy_text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller guarantees it.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// An object of librdkafka that is destroyed when it goes out of scope. May be null.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the matching constructor created the object, and nothing shares it.
            unsafe { (self.1)(self.0) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssl_was_built_with_threads() {
        assert!(openssl_knows_threads());
    }

    #[test]
    fn librdkafka_names_its_properties() {
        let names = kafka_properties();
        // One of the client and one of a topic.
        for name in ["fetch.min.bytes", "request.required.acks"] {
            assert!(names.iter().any(|n| n == name), "{name}");
        }
    }
}
