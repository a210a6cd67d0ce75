//! What a program does before its C library starts: re-executing itself from a read-only clone of its mount.
//!
//! A C library's start is expensive, in a virtual machine above all: it asks the processor for its caches, and each answer costs a VM exit. A
//! program that is going to re-execute itself does not need the first of its two starts. So this code is the entry of the ELF file, and
//! continues to the C library if it has nothing to do or cannot do it: then the program's own check
//! ([`protect`](../../hull/process/own_binary) in hull) decides as if nothing had been tried.
//!
//! Nothing works here but registers and the stack: no allocation, no thread-local storage, no calls into the C library. The compiler turns
//! loops that compare, copy or measure memory into such calls; so memory is read by volatile loads, which it leaves alone.

use core::arch::asm;
use core::mem::MaybeUninit;

use crate::config::names_user_namespace;
use crate::own_clone;

/// Longest configuration that is searched; a longer one is left to the program.
const LONGEST: usize = 256 * 1024;

/// Defines the entry of a program, `$name`; the linker has to be told (`-e`).
///
/// It executes the program again from a read-only clone of its mount when the command is `run` or `create` and the
/// bundle's configuration does not make it needless by a user namespace.
#[macro_export]
macro_rules! early_start {
    ($name:ident) => {
        /// The first instructions of the program; the kernel or the dynamic linker comes here.
        #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
        // SAFETY: the only definition of the name. The stack is as the kernel leaves it and is left so for `_start`, and
        // rdx, which is all that the dynamic linker passes on in registers, is kept.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name() -> ! {
            ::core::arch::naked_asm!(
                "mov rdi, rsp",
                "push rdx",
                // A call wants the stack aligned to 16 bytes.
                "sub rsp, 8",
                "call {early}",
                "add rsp, 8",
                "pop rdx",
                "jmp _start",
                early = sym $crate::early::run,
            )
        }
    };
}

/// Does what there is to do. Returns when there is nothing, or when it does not work.
///
/// # Safety
/// `stack` is the stack pointer that the kernel started the program with: the number of arguments, the arguments, a null
/// pointer, the environment, a null pointer.
#[doc(hidden)]
pub unsafe extern "C" fn run(stack: *const usize) {
    // SAFETY: the first word is the number of arguments.
    let count = unsafe { word_at(stack, 0) };
    let arguments = stack.wrapping_add(1).cast::<*const u8>();
    let environment = arguments.wrapping_add(count.wrapping_add(1));
    // SAFETY: the strings are the kernel's, each ends with a zero byte.
    let Some(bundle) = (unsafe { bundle_of(arguments, count) }) else { return };
    // SAFETY: what follows the environment is the auxiliary vector.
    if let Some(handle) = unsafe { executed_handle(environment) } {
        own_clone::keep(handle);
        return;
    }
    let Some(exe) = unprotected() else { return };
    let needless = configuration_names_user_namespace(bundle) != Some(false);
    let program = if needless { None } else { read_only_clone(exe) };
    close(exe);
    let Some(program) = program else { return };
    let at = [
        program,
        EMPTY.as_ptr().expose_provenance(),
        arguments.expose_provenance(),
        environment.expose_provenance(),
        AT_EMPTY_PATH,
        0,
    ];
    call(libc::SYS_execveat, at);
    close(program);
}

/// The descriptor on a read-only mount that this program was executed from: then its name is `/dev/fd/` and the number.
/// From now on it is close-on-exec.
///
/// # Safety
/// After the strings of `environment` and a null pointer there are pairs of words, the last of which begins with 0.
unsafe fn executed_handle(environment: *const *const u8) -> Option<i32> {
    const AT_EXECFN: usize = 31;
    const F_SETFD: usize = 2;
    const FD_CLOEXEC: usize = 1;
    let mut end = 0;
    // SAFETY: the null pointer comes.
    while !unsafe { word_at(environment, end) }.is_null() {
        end = end.wrapping_add(1);
    }
    let mut pair = environment.wrapping_add(end.wrapping_add(1)).cast::<usize>();
    let name = loop {
        // SAFETY: the last pair was not reached yet.
        let kind = unsafe { word_at(pair, 0) };
        // SAFETY: the same.
        let value = unsafe { word_at(pair, 1) };
        match kind {
            0 => return None,
            AT_EXECFN => break core::ptr::with_exposed_provenance::<u8>(value),
            _ => pair = pair.wrapping_add(2),
        }
    };
    const FOLDER: &[u8] = b"/dev/fd/";
    // SAFETY: the kernel's string, with its zero byte.
    if !unsafe { begins_with(name, FOLDER) } {
        return None;
    }
    let mut handle: usize = 0;
    let mut at = FOLDER.len();
    loop {
        // SAFETY: the zero byte was not reached yet.
        match unsafe { word_at(name, at) } {
            0 => break,
            digit @ b'0'..=b'9' => {
                handle = handle.wrapping_mul(10).wrapping_add(usize::from(digit.wrapping_sub(b'0')));
            }
            _ => return None,
        }
        at = at.wrapping_add(1);
    }
    if !file_system(handle)?.read_only {
        return None;
    }
    call(libc::SYS_fcntl, [handle, F_SETFD, FD_CLOEXEC, 0, 0, 0])?;
    i32::try_from(handle).ok()
}

const EMPTY: &[u8; 1] = b"\0";
const AT_EMPTY_PATH: usize = 0x1000;
const O_PATH_CLOEXEC: usize = 0o12_000_000;
const O_CLOEXEC: usize = 0o2_000_000;
const AT_FDCWD: usize = usize::MAX.wrapping_sub(99);

/// The bundle of a `run` or `create`, else none. A word of either kind anywhere will do: where it is something else, the
/// program starts twice, and nothing else happens.
///
/// # Safety
/// `arguments` are `count` strings that end with zero bytes.
unsafe fn bundle_of(arguments: *const *const u8, count: usize) -> Option<*const u8> {
    let mut bundle = c".".as_ptr().cast::<u8>();
    let mut starts = false;
    let mut at = 1;
    while at < count {
        // SAFETY: below `count`.
        let word = unsafe { word_at(arguments, at) };
        at = at.wrapping_add(1);
        // SAFETY: a string that ends with a zero byte.
        let is = |expected: &[u8]| unsafe { begins_with(word, expected) };
        if is(b"run\0") || is(b"create\0") {
            starts = true;
        } else if is(b"-b\0") || is(b"--bundle\0") || is(b"-bundle\0") {
            if at >= count {
                return None;
            }
            // SAFETY: below `count`.
            bundle = unsafe { word_at(arguments, at) };
            at = at.wrapping_add(1);
        } else {
            let value = [b"-b=".as_slice(), b"--bundle=", b"-bundle="].into_iter().find(|prefix| is(prefix));
            if let Some(prefix) = value {
                bundle = word.wrapping_add(prefix.len());
            }
        }
    }
    starts.then_some(bundle)
}

/// Reads in a way that the compiler does not turn into a call of the C library.
///
/// # Safety
/// There is something at the index.
unsafe fn word_at<T: Copy>(start: *const T, index: usize) -> T {
    let place = start.wrapping_add(index);
    // SAFETY: the caller's word.
    unsafe { place.read_volatile() }
}

/// # Safety
/// `text` ends with a zero byte.
unsafe fn begins_with(text: *const u8, expected: &[u8]) -> bool {
    let mut at = 0;
    while at < expected.len() {
        // SAFETY: everything before matched, so that the text has not ended yet unless the zero byte was asked for,
        // which can only be last.
        let byte = unsafe { word_at(text, at) };
        if expected.get(at) != Some(&byte) {
            return false;
        }
        at = at.wrapping_add(1);
    }
    true
}

/// Whether "user" is the value of something in the bundle's configuration; `None` if that cannot be read.
fn configuration_names_user_namespace(bundle: *const u8) -> Option<bool> {
    let directory = call(libc::SYS_openat, [AT_FDCWD, bundle.expose_provenance(), O_PATH_CLOEXEC, 0, 0, 0])?;
    let file = call(libc::SYS_openat, [directory, c"config.json".as_ptr().expose_provenance(), O_CLOEXEC, 0, 0, 0]);
    close(directory);
    let file = file?;
    let found = mapped_names_user_namespace(file);
    close(file);
    found
}

fn mapped_names_user_namespace(file: usize) -> Option<bool> {
    const END: usize = 2;
    let length = call(libc::SYS_lseek, [file, 0, END, 0, 0, 0])?;
    if length == 0 || length > LONGEST {
        return None;
    }
    let (read, private_populated) = (1, 0x8002);
    let text = call(libc::SYS_mmap, [0, length, read, private_populated, file, 0])?;
    // SAFETY: mapped for reading, as long as this, until the next call. (A file that shrinks meanwhile ends the program by
    // SIGBUS: it is the caller's own bundle, and nothing has begun.)
    let bytes = unsafe { core::slice::from_raw_parts(core::ptr::with_exposed_provenance(text), length) };
    let found = names_user_namespace(bytes);
    call(libc::SYS_munmap, [text, length, 0, 0, 0, 0]);
    Some(found)
}

/// A handle of the running program; `None` if its mount is read-only already, or it is a memory file.
fn unprotected() -> Option<usize> {
    let exe =
        call(libc::SYS_openat, [AT_FDCWD, c"/proc/self/exe".as_ptr().expose_provenance(), O_PATH_CLOEXEC, 0, 0, 0])?;
    match file_system(exe) {
        Some(FileSystem { read_only: false, in_memory: false }) => Some(exe),
        _ => {
            close(exe);
            None
        }
    }
}

/// Where a file is.
struct FileSystem {
    read_only: bool,
    in_memory: bool,
}

fn file_system(file: usize) -> Option<FileSystem> {
    const ST_RDONLY: u64 = 1;
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    // `struct statfs`, whose flags are missing in libc's type: an array of words, of which the first is the type and the eleventh the flags.
    let mut stat = MaybeUninit::<[u64; 15]>::uninit();
    call(libc::SYS_fstatfs, [file, stat.as_mut_ptr().expose_provenance(), 0, 0, 0, 0])?;
    // SAFETY: the kernel filled it.
    let [kind, _, _, _, _, _, _, _, _, _, flags, ..] = unsafe { stat.assume_init() };
    Some(FileSystem { read_only: flags & ST_RDONLY != 0, in_memory: kind == TMPFS_MAGIC })
}

/// A handle of the same file below a read-only clone of its mount, which the next start takes over ([`own_clone`]); `None` if that is not
/// possible.
fn read_only_clone(exe: usize) -> Option<usize> {
    /// `struct mount_attr`: to set, to clear, propagation, user namespace.
    static READ_ONLY: [u64; 4] = [1, 0, 0, 0];
    const OPEN_TREE_CLONE: usize = 1;
    let tree =
        call(libc::SYS_open_tree, [exe, EMPTY.as_ptr().expose_provenance(), OPEN_TREE_CLONE | AT_EMPTY_PATH, 0, 0, 0])?;
    let attributes = [
        tree,
        EMPTY.as_ptr().expose_provenance(),
        AT_EMPTY_PATH,
        READ_ONLY.as_ptr().expose_provenance(),
        size_of_val(&READ_ONLY),
        0,
    ];
    if call(libc::SYS_mount_setattr, attributes).is_none() {
        close(tree);
        return None;
    }
    Some(tree)
}

fn close(descriptor: usize) {
    call(libc::SYS_close, [descriptor, 0, 0, 0, 0, 0]);
}

/// A system call without the C library, which stores the error number in thread-local storage; `None` on error.
fn call(number: libc::c_long, arguments: [usize; 6]) -> Option<usize> {
    let [a, b, c, d, e, f] = arguments;
    let answer: isize;
    // SAFETY: the calls of this file take descriptors, numbers and pointers to memory that lives until they return.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") isize::try_from(number).unwrap_or(-1) => answer,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    usize::try_from(answer).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(words: &[&str]) -> Option<String> {
        let strings: Vec<_> = words.iter().map(|word| std::ffi::CString::new(*word).unwrap()).collect();
        let pointers: Vec<_> = strings.iter().map(|string| string.as_ptr().cast::<u8>()).collect();
        // SAFETY: as many strings as pointers, each with its zero byte.
        let found = unsafe { bundle_of(pointers.as_ptr(), pointers.len()) }?;
        // SAFETY: one of the strings, or a literal.
        let found = unsafe { std::ffi::CStr::from_ptr(found.cast()) };
        Some(found.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_descriptor_that_was_executed_is_known_by_the_name() {
        let executed = |name: &std::ffi::CStr| {
            let variable = c"A=b".as_ptr().expose_provenance();
            let words = [variable, 0, 6, 4096, 31, name.as_ptr().expose_provenance(), 0, 0];
            // SAFETY: one string, a null pointer, pairs that end with 0.
            unsafe { executed_handle(words.as_ptr().cast()) }
        };
        let executed_from = |path: &str| {
            let file = std::fs::File::open(path).unwrap();
            let open = std::os::fd::AsRawFd::as_raw_fd(&file);
            let name = std::ffi::CString::new(format!("/dev/fd/{open}")).unwrap();
            executed(&name).map(|handle| handle == open)
        };
        // Where the machine has a read-only mount.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let read_only = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (path, options) = (words.next()?, words.nth(1)?);
            (options.split(',').any(|option| option == "ro") && std::fs::File::open(path).is_ok()).then_some(path)
        });
        if let Some(path) = read_only {
            assert_eq!(executed_from(path), Some(true), "{path}");
        }
        assert_eq!(executed_from(std::env::current_exe().unwrap().to_str().unwrap()), None);
        assert_eq!(executed(c"/dev/fd/1000000"), None);
        assert_eq!(executed(c"/dev/fd/1/x"), None);
        assert_eq!(executed(c"/usr/bin/hull"), None);
    }

    #[test]
    fn only_commands_that_start_a_container_have_a_bundle() {
        assert_eq!(bundle(&["hull", "run", "id"]).as_deref(), Some("."));
        assert_eq!(bundle(&["hull", "--root", "/r", "create", "--bundle", "/b", "id"]).as_deref(), Some("/b"));
        assert_eq!(bundle(&["hull", "create", "--bundle=/b", "id"]).as_deref(), Some("/b"));
        assert_eq!(bundle(&["hull", "run", "id", "-b", "/b"]).as_deref(), Some("/b"));
        assert_eq!(bundle(&["hull", "run", "-b=/b", "id"]).as_deref(), Some("/b"));
        assert_eq!(bundle(&["hull", "run", "id", "-b"]), None);
        assert_eq!(bundle(&["hull", "state", "id"]), None);
        assert_eq!(bundle(&["hull", "runs", "created"]), None);
        assert_eq!(bundle(&["hull"]), None);
    }
}
