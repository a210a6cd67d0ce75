//! Tiny static programs that make a few system calls, for calls that busybox has no applet for.

/// Machine code of `mov r, imm64` for the registers of a system call's number and arguments.
const NUMBER: [u8; 2] = [0x48, 0xb8]; // rax
const ARGUMENTS: [[u8; 2]; 6] = [
    [0x48, 0xbf], // rdi
    [0x48, 0xbe], // rsi
    [0x48, 0xba], // rdx
    [0x49, 0xba], // r10
    [0x49, 0xb8], // r8
    [0x49, 0xb9], // r9
];

/// A program that makes one call and exits with its error number, 0 if it succeeded.
pub(crate) fn call(number: u64, args: &[u64]) -> Vec<u8> {
    let mut code = Vec::new();
    make(&mut code, number, args);
    exit_with_errno(&mut code);
    elf(&code)
}

/// A program that makes calls of one path each, whatever comes of them, and exits with the error number of the last.
pub(crate) fn calls_of_paths(calls: &[(u64, &str)]) -> Vec<u8> {
    let assemble = |place_of_paths: u64| {
        let (mut code, mut paths) = (Vec::new(), Vec::new());
        for (number, path) in calls {
            make(&mut code, *number, &[place_of_paths + length(&paths), 0]);
            paths.extend_from_slice(path.as_bytes());
            paths.push(0);
        }
        exit_with_errno(&mut code);
        (code, paths)
    };
    // Instructions have the same length wherever the paths are.
    let (code, _) = assemble(0);
    let (mut code, paths) = assemble(BASE + HEADERS + length(&code));
    code.extend(paths);
    elf(&code)
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or_default()
}

fn make(code: &mut Vec<u8>, number: u64, args: &[u64]) {
    for (load, value) in ARGUMENTS.iter().zip(args) {
        code.extend_from_slice(load);
        code.extend_from_slice(&value.to_le_bytes());
    }
    code.extend_from_slice(&NUMBER);
    code.extend_from_slice(&number.to_le_bytes());
    code.extend_from_slice(&[0x0f, 0x05]); // syscall
}

/// The same through the 32-bit entry, `int 0x80`, with up to three arguments.
pub(crate) fn call_32(number: u32, args: [u32; 3]) -> Vec<u8> {
    let mut code = Vec::new();
    for (load, value) in [0xbb, 0xb9, 0xba].into_iter().zip(args) {
        code.push(load); // mov ebx, ecx, edx
        code.extend_from_slice(&value.to_le_bytes());
    }
    code.push(0xb8); // mov eax
    code.extend_from_slice(&number.to_le_bytes());
    code.extend_from_slice(&[0xcd, 0x80]); // int 0x80
    code.extend_from_slice(&[0x48, 0x98]); // cdqe
    exit_with_errno(&mut code);
    elf(&code)
}

/// A program whose second thread makes a call of no arguments. It exits with 7 if that thread lives on, and with 42 if the thread alone ends.
pub(crate) fn call_in_thread(number: u64) -> Vec<u8> {
    // VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, CHILD_CLEARTID: when the thread is gone, the kernel clears a word and wakes who waits for it.
    const THREAD: u64 = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000 | 0x20_0000;
    let mut code = vec![0x6a, 0x01]; // push 1: the word is on the stack
    code.extend_from_slice(&ARGUMENTS[0]);
    code.extend_from_slice(&THREAD.to_le_bytes());
    code.extend_from_slice(&[
        0x48, 0x8d, 0xb4, 0x24, 0x00, 0xf0, 0xff, 0xff, // lea rsi, [rsp - 4096]
        0x31, 0xd2, // xor edx, edx
        0x49, 0x89, 0xe2, // mov r10, rsp
        0x45, 0x31, 0xc0, // xor r8d, r8d
        0xb8, 56, 0, 0, 0, // mov eax, clone
        0x0f, 0x05, // syscall
        0x85, 0xc0, // test eax, eax
        0x74, 0x26, // jz to the thread's part
        0x8b, 0x04, 0x24, // wait: mov eax, [rsp]
        0x85, 0xc0, // test eax, eax
        0x74, 0x13, // jz to the end
        0x48, 0x89, 0xe7, // mov rdi, rsp
        0x31, 0xf6, // xor esi, esi: FUTEX_WAIT
        0x89, 0xc2, // mov edx, eax
        0x45, 0x31, 0xd2, // xor r10d, r10d
        0xb8, 202, 0, 0, 0, // mov eax, futex
        0x0f, 0x05, // syscall
        0xeb, 0xe6, // jmp wait
        0xbf, 42, 0, 0, 0, // end: mov edi, 42
        0xb8, 231, 0, 0, 0, // mov eax, exit_group
        0x0f, 0x05, // syscall
    ]);
    make(&mut code, number, &[0]); // the thread's part
    make(&mut code, 231, &[7]);
    elf(&code)
}

fn exit_with_errno(code: &mut Vec<u8>) {
    code.extend_from_slice(&[
        0x48, 0x89, 0xc7, // mov rdi, rax
        0x48, 0xf7, 0xdf, // neg rdi
        0x48, 0x85, 0xff, // test rdi, rdi
        0x7f, 0x02, // jg over the next
        0x31, 0xff, // xor edi, edi
        0xb8, 0xe7, 0x00, 0x00, 0x00, // mov eax, exit_group
        0x0f, 0x05, // syscall
    ]);
}

const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// An ELF file with one loadable segment.
fn elf(code: &[u8]) -> Vec<u8> {
    let size = HEADERS + length(code);
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |file: &mut Vec<u8>, value: u16| file.extend_from_slice(&value.to_le_bytes());
    let word = |file: &mut Vec<u8>, value: u32| file.extend_from_slice(&value.to_le_bytes());
    let long = |file: &mut Vec<u8>, value: u64| file.extend_from_slice(&value.to_le_bytes());
    half(&mut file, 2); // executable
    half(&mut file, 62); // x86-64
    word(&mut file, 1);
    long(&mut file, BASE + HEADERS);
    long(&mut file, 64);
    long(&mut file, 0);
    word(&mut file, 0);
    for value in [64, 56, 1, 0, 0, 0] {
        half(&mut file, value);
    }
    word(&mut file, 1); // load
    word(&mut file, 5); // read and execute
    for value in [0, BASE, BASE, size, size, 0x1000] {
        long(&mut file, value);
    }
    file.extend_from_slice(code);
    file
}
