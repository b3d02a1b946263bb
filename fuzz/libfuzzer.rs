//! libFuzzer's way in: inputs guided by the branches that they reach. Only in builds of `fuzz/run.sh`.
//! Trusts: libFuzzer.
//! Touches: libFuzzer's own folders.
//! Next: `runner::one` judges each input.

#![expect(unsafe_code, reason = "libFuzzer is a C++ library; this is its whole interface")]

use std::ffi::{CString, c_char, c_int};
use std::process::ExitCode;
use std::sync::OnceLock;

use crate::runner;
use crate::targets::Target;

static TARGET: OnceLock<&'static Target> = OnceLock::new();

unsafe extern "C" {
    fn LLVMFuzzerRunDriver(argc: *mut c_int, argv: *mut *mut *mut c_char, run: extern "C" fn(*const u8, usize) -> c_int) -> c_int;
}

/// Runs `target` with libFuzzer's own arguments until they are fulfilled or something is found.
pub fn guided(target: &'static Target, arguments: &[&str]) -> ExitCode {
    runner::remember_panics();
    TARGET.get_or_init(|| target);
    let texts = std::iter::once("fuzz").chain(arguments.iter().copied());
    // They live as long as the process, as those of `main` do in C.
    let mut pointers: Vec<*mut c_char> = texts.map(|text| CString::new(text).expect("no zero byte").into_raw()).collect();
    let mut count = c_int::try_from(pointers.len()).expect("few arguments");
    pointers.push(std::ptr::null_mut());
    let mut pointers = pointers.leak().as_mut_ptr();
    // SAFETY: `argc` and `argv` are as `main` gets them, end in a null pointer and outlive the call; `run` keeps to its C signature.
    let code = unsafe { LLVMFuzzerRunDriver(&raw mut count, &raw mut pointers, run) };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// One input. A broken promise aborts, which libFuzzer takes for the finding that it is.
extern "C" fn run(data: *const u8, len: usize) -> c_int {
    // SAFETY: libFuzzer gives `len` readable bytes that nobody else writes during the call; `data` may be null only when `len` is 0.
    let input = if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(data, len) } };
    if let Some(target) = TARGET.get()
        && let Err(why) = runner::one(target, input)
    {
        println!("{}: {why}", target.name);
        std::process::abort();
    }
    0
}
