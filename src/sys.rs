//! All unsafe code of the program: calls to the C library, OpenSSL and librdkafka that have no safe wrapper.
//!
//! | called | for |
//! |---|---|
//! | the C library | a name service without plug-ins, the limit of open files, the boot clock, Ctrl-Z |
//! | OpenSSL | process exit without clean-up, and a test for thread support |
//! | librdkafka | topic ids, rights, group members, property names, log ends, leader epochs, commit metadata, tokens |
//!
//! All public functions take and return only safe types. Every code path destroys the librdkafka objects that it
//! creates.
#![allow(unsafe_code)]

mod brokers;
mod describe;
mod group;
mod topic_id;

use std::ffi::{CStr, CString, c_char, c_int};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::client::{Client, ClientContext};
use rdkafka::message::BorrowedMessage;
use rdkafka_sys as rdsys;

use crate::core::clock::{BootMs, UnixMs};

pub use brokers::{Brokers, brokers};
pub use describe::{
    Operation, Rights, TopicError, TopicFacts, topic_facts, topic_facts_and_rights,
};
pub use group::{Members, MembersError, group_members, group_rights};
pub use topic_id::TopicId;

/// Makes the C library resolve host names only from `/etc/hosts` and DNS.
///
/// By default, glibc loads the name service plug-ins that `/etc/nsswitch.conf` lists. In a static binary, a plug-in of
/// glibc loads the host's libc as a second C library, and the process crashes. Call this function before the process
/// resolves a host name or starts another thread.
pub fn use_static_name_service() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
        }
        // SAFETY: both arguments are NUL-terminated constants, and glibc keeps no pointer to the arguments. `main`
        // calls this function before the process starts a second thread.
        let failed = unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
        debug_assert_eq!(failed, 0);
    }
}

/// Returns the time since the host started. On Linux, the result includes the time during which the host was suspended.
pub fn boot_ms() -> BootMs {
    #[cfg(target_os = "linux")]
    const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes only to `time`, which outlives the call. Every supported operating system has the clock
    // `CLOCK`.
    let failed = unsafe { libc::clock_gettime(CLOCK, &raw mut time) };
    debug_assert_eq!(failed, 0);
    BootMs(time.tv_sec * 1_000 + time.tv_nsec / 1_000_000)
}

/// Prevents OpenSSL from freeing its memory when the process ends.
///
/// At the end of the process, threads of librdkafka may still close connections. If OpenSSL freed its memory, the
/// threads of librdkafka would use freed memory. Call this function before the first use of OpenSSL.
pub fn keep_openssl_at_exit() {
    const OPENSSL_INIT_NO_ATEXIT: u64 = 0x0008_0000;
    unsafe extern "C" {
        fn OPENSSL_init_crypto(options: u64, settings: *const std::ffi::c_void) -> c_int;
    }
    // SAFETY: the function `OPENSSL_init_crypto` may be called before all other functions of OpenSSL, with a null
    // pointer for the settings.
    let done = unsafe { OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, std::ptr::null()) };
    debug_assert_eq!(done, 1);
}

/// Returns true if OpenSSL was built with thread support.
///
/// Without thread support, the locks of OpenSSL do nothing, and two connections can corrupt memory.
/// `.cargo/config.toml` explains how OpenSSL can be built without thread support by mistake.
pub fn openssl_knows_threads() -> bool {
    unsafe extern "C" {
        fn CRYPTO_THREAD_get_current_id() -> libc::pthread_t;
    }
    // SAFETY: the function takes no arguments, and returns the id of the current thread, or 0 if OpenSSL has no thread
    // support.
    unsafe { CRYPTO_THREAD_get_current_id() != 0 }
}

/// Raises the limit of open files to the maximum that the host allows.
///
/// The usual limit of 1,024 open files is lower than the number of connections that the server accepts. With a limit of
/// 1,024 open files, stalled clients could use up all file descriptors.
pub fn raise_open_files() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls read or write only the struct `limit`, which outlives the calls.
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

/// Returns the current limit of open files, and the maximum to which a process may raise it.
pub fn open_files() -> Option<(u64, u64)> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call writes only the struct `limit`, which outlives the call.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 };
    known.then_some((limit.rlim_cur, limit.rlim_max))
}

/// Returns the names of librdkafka's properties that have a default value. An error message uses the names to suggest a
/// correction of a misspelled property.
pub fn kafka_properties() -> Vec<String> {
    let mut out = Vec::new();
    // SAFETY: this block creates, reads and destroys both configuration objects. Each configuration dump is an array of
    // `count` NUL-terminated strings, in which names and values alternate. The block frees each dump with the `count`
    // that librdkafka returned for that dump.
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

/// Copies the names of the properties from a configuration dump, in which names and values alternate.
///
/// # Safety
/// `dump` must be an array of `count` NUL-terminated strings.
unsafe fn copy_names(dump: *mut *const c_char, count: usize, out: &mut Vec<String>) {
    for at in (0..count).step_by(2) {
        // SAFETY: the caller guarantees that `dump` is an array of `count` NUL-terminated strings.
        out.push(unsafe { copy_text(*dump.add(at)) });
    }
}

/// Returns the end offset of a partition's log, as reported by the last fetch, or `None` before the first fetch.
///
/// Unlike the corresponding function of rdkafka's safe API, this function sends no request to the brokers.
pub fn known_log_end<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partition: i32,
) -> Option<i64> {
    let name = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the borrow keeps the client alive. The call reads the C string `name` and writes the numbers `low` and
    // `high`. All three variables outlive the call.
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

/// Suspends this process, as Ctrl-Z does. Returns when the process is continued.
///
/// The live screen handles SIGTSTP, the signal of Ctrl-Z, because the screen must restore the terminal before the
/// process stops. After the screen has restored the terminal, this function raises SIGTSTP again, with the default
/// effect of stopping the process. If the process has no parent shell that could resume the process, the operating
/// system ignores SIGTSTP.
pub fn stop_here() {
    // SAFETY: both `sigaction` structs are plain data and outlive the calls. The previous signal handler is restored.
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

/// Suspends the process group of this process. The live screen needs this function, because a terminal in raw mode does
/// not turn Ctrl-Z into a signal.
pub fn stop_job() {
    // SAFETY: the call takes two numbers and no pointer. The process id 0 stands for the process group of the calling
    // process.
    let sent = unsafe { libc::kill(0, libc::SIGTSTP) };
    debug_assert_eq!(sent, 0);
}

/// The signals SIGTSTP (sent by Ctrl-Z) and SIGCONT (sent by the shell command `fg`).
pub const STOP_AND_GO: [i32; 2] = [libc::SIGTSTP, libc::SIGCONT];

/// Gives a client a token for SASL/OAUTHBEARER. The token expires at `end_ms`.
///
/// rdkafka's safe API cannot give a token to an admin client, because rdkafka does not run the callbacks of admin
/// clients.
///
/// # Errors
/// Returns the message of librdkafka if the client uses another login mechanism or the token has expired.
pub fn set_token<C: ClientContext>(
    client: &Client<C>,
    token: &str,
    end_ms: UnixMs,
) -> Result<(), String> {
    let token = CString::new(token).map_err(|e| e.to_string())?;
    let mut text: [c_char; 256] = [0; 256];
    // SAFETY: the client is live, and librdkafka copies the NUL-terminated strings. The call passes no SASL extensions.
    // The call also passes the length of the buffer `text`.
    let error = unsafe {
        rdsys::rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            token.as_ptr(),
            end_ms.0,
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
    // SAFETY: librdkafka has written a NUL-terminated error message into the buffer `text`.
    Err(unsafe { copy_text(text.as_ptr()) })
}

/// Returns the metadata of a partition's committed offset as bytes. The returned vector is empty if the commit has no
/// metadata.
///
/// rdkafka's safe API panics if the metadata is not UTF-8, and any tool can commit arbitrary metadata for the group.
pub fn commit_metadata(list: &TopicPartitionList, topic: &str, partition: i32) -> Vec<u8> {
    let Ok(topic) = CString::new(topic) else {
        return Vec::new();
    };
    // SAFETY: the value `list` owns a valid list of librdkafka, whose elements stay valid as long as the list. A
    // non-null metadata pointer points to `metadata_size` bytes, which this block copies.
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

/// Returns the epoch of the leader that wrote a record, or `None` if the broker does not report the epoch.
pub fn record_epoch(record: &BorrowedMessage<'_>) -> Option<i32> {
    // SAFETY: the record owns a live message of librdkafka.
    let epoch = unsafe { rdsys::rd_kafka_message_leader_epoch(record.ptr()) };
    (epoch >= 0).then_some(epoch)
}

/// Returns a timeout in the form that librdkafka expects.
fn timeout_ms(timeout: Duration) -> c_int {
    c_int::try_from(timeout.as_millis())
        .unwrap_or(c_int::MAX - 1_000)
        .clamp(1, c_int::MAX - 1_000)
}

/// Copies a C string. Returns an empty string if the pointer is null.
///
/// # Safety
/// `text` must be null or point to a NUL-terminated string.
unsafe fn copy_text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller guarantees that `text` points to a NUL-terminated string.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// An object of librdkafka that is destroyed when this value is dropped. The pointer may be null.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the object was created by the librdkafka function that matches this destructor, and has no other
            // owner.
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
        // `fetch.min.bytes` is a property of the client, and `request.required.acks` is a property of a topic.
        for name in ["fetch.min.bytes", "request.required.acks"] {
            assert!(names.iter().any(|n| n == name), "{name}");
        }
    }
}
