//! The few foreign calls, each with its reason; the only unsafe code of the program.
//!
//! The C library's name service is told not to load plug-ins into a static binary, OpenSSL is held to
//! its threads, the process takes the open files it is allowed, time is told that goes on while the host
//! sleeps, and librdkafka is asked for topic ids, rights and its properties' names and given tokens,
//! which its safe wrapper cannot. Nothing unsafe leaves this module: the public functions take and return plain values, and every object of
//! librdkafka's is destroyed on every path.
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
/// In a static binary glibc would otherwise load the host's name-service plug-ins named in
/// `/etc/nsswitch.conf`, and with them the host's libc, into this process, and crash. Must run
/// before the first name is resolved and before any other thread exists.
pub fn use_static_name_service() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
        }
        // SAFETY: both arguments are NUL-terminated constants that glibc parses and does not keep,
        // and main calls this before it starts a thread.
        let failed = unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
        debug_assert_eq!(failed, 0);
    }
}

/// Returns the time since the host was started, in milliseconds, the time that it slept included where the
/// system tells it.
pub fn boot_ms() -> i64 {
    #[cfg(target_os = "linux")]
    const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call fills the one value it is given; both clocks exist wherever this is built for.
    let failed = unsafe { libc::clock_gettime(CLOCK, &raw mut time) };
    debug_assert_eq!(failed, 0);
    time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
}

/// Keeps OpenSSL from cleaning up behind itself when the process ends.
///
/// librdkafka's threads may still close their connections then, and would use what was freed. Must run
/// before OpenSSL is used for the first time.
pub fn keep_openssl_at_exit() {
    const OPENSSL_INIT_NO_ATEXIT: u64 = 0x0008_0000;
    unsafe extern "C" {
        fn OPENSSL_init_crypto(options: u64, settings: *const std::ffi::c_void) -> c_int;
    }
    // SAFETY: OpenSSL's documented first call; no settings.
    let done = unsafe { OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, std::ptr::null()) };
    debug_assert_eq!(done, 1);
}

/// Tells whether OpenSSL was built with threads. Without them its locks do nothing, and two
/// connections corrupt memory; `.cargo/config.toml` says how that comes about.
pub fn openssl_knows_threads() -> bool {
    unsafe extern "C" {
        fn CRYPTO_THREAD_get_current_id() -> libc::pthread_t;
    }
    // SAFETY: takes nothing and reads the thread's id, or is a constant 0 without threads.
    unsafe { CRYPTO_THREAD_get_current_id() != 0 }
}

/// Raises the number of files this process may have open to what the host allows it.
///
/// The customary 1,024 is fewer than the connections the server takes, so that stalled clients alone
/// could use them up. The standard library has no call for it.
pub fn raise_open_files() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls only read or write the one struct, which outlives them.
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

/// Returns how many files this process may have open: now, and at most.
pub fn open_files() -> Option<(u64, u64)> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call writes the one struct, which outlives it.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 };
    known.then_some((limit.rlim_cur, limit.rlim_max))
}

/// Returns the names of librdkafka's properties that have a value of their own, so that a misspelt
/// one can be told from its nearest. The safe wrapper does not show them.
pub fn kafka_properties() -> Vec<String> {
    let mut out = Vec::new();
    // SAFETY: both objects are made, read and destroyed here; each dump is an array of as many
    // NUL-terminated strings as its count says, names and values by turns, and is freed with it.
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

/// Copies every second string.
///
/// # Safety
/// `dump` is an array of `count` NUL-terminated strings.
unsafe fn copy_names(dump: *mut *const c_char, count: usize, out: &mut Vec<String>) {
    for at in (0..count).step_by(2) {
        // SAFETY: the caller's promise.
        out.push(unsafe { copy_text(*dump.add(at)) });
    }
}

/// Returns what the last fetch said a partition's log ends with; `None` before the first. Asks nobody.
/// The safe wrapper only has the call that asks.
pub fn known_log_end<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partition: i32,
) -> Option<i64> {
    let name = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client is live while it is borrowed; the name is NUL-terminated and only read, and
    // both numbers outlive the call.
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

/// Stops this process as Ctrl-Z would, and returns once it goes on.
///
/// For who catches that signal to put the terminal in order first. It is raised again with its
/// default effect, so that the system still ignores it where nobody could continue the process.
pub fn stop_here() {
    // SAFETY: both structs are plain data and outlive the calls; the former handler is put back.
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

/// Stops the job this process belongs to, as Ctrl-Z does where the terminal still listens to it.
pub fn stop_job() {
    // SAFETY: takes two numbers; 0 is the own process group.
    let sent = unsafe { libc::kill(0, libc::SIGTSTP) };
    debug_assert_eq!(sent, 0);
}

/// The signals that Ctrl-Z and `fg` send.
pub const STOP_AND_GO: [i32; 2] = [libc::SIGTSTP, libc::SIGCONT];

/// Gives a client a token for SASL/OAUTHBEARER that ends at `end_ms`, in Unix milliseconds.
///
/// The safe wrapper does so only for clients whose callbacks it serves, and an admin client is none.
///
/// # Errors
/// librdkafka's words, where the client logs in otherwise or the token is past its end.
pub fn set_token<C: ClientContext>(
    client: &Client<C>,
    token: &str,
    end_ms: i64,
) -> Result<(), String> {
    let token = CString::new(token).map_err(|e| e.to_string())?;
    let mut text: [c_char; 256] = [0; 256];
    // SAFETY: the client is live; all texts end in NUL and are copied; there are no extensions;
    // `text` is writable for the length given.
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
    // SAFETY: librdkafka has written a text that ends in NUL.
    Err(unsafe { copy_text(text.as_ptr()) })
}

/// Returns what stands beside a partition's committed offset, byte for byte; empty if nothing does.
///
/// Needed because the safe wrapper panics on metadata that is not UTF-8, and any tool can commit
/// such to our group.
pub fn commit_metadata(list: &TopicPartitionList, topic: &str, partition: i32) -> Vec<u8> {
    let Ok(topic) = CString::new(topic) else {
        return Vec::new();
    };
    // SAFETY: `list` owns a live list, and what is found in it lives as long; the metadata, if not
    // null, points to as many bytes as its size says, copied here.
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

/// Copies a C string; "" for null.
///
/// # Safety
/// `text` is null or NUL-terminated.
unsafe fn copy_text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// An object of librdkafka's that is destroyed when it goes out of scope; may be null.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: made by the constructor that belongs to this destructor, and not shared.
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
