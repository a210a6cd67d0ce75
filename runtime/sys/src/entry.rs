//! A program's entry without the standard library's own start-up.
//!
//! Before `fn main`, the standard library reads `/proc/self/maps` to find the stack's guard page, makes an alternate
//! signal stack and installs handlers that only name a stack overflow before the process dies of it. A program that
//! starts for a few milliseconds, and starts itself twice, can do without.

/// Defines the C `main` of a program, which runs `$run` (a `fn() -> !`).
///
/// The crate needs `#![no_main]`. As with the standard library's start-up, SIGPIPE is ignored; unlike with it, standard
/// streams that are closed stay closed until the program opens them.
#[macro_export]
macro_rules! program {
    ($run:path) => {
        /// Called by the C library.
        // SAFETY: the only `main` of the program, with the type that the C library calls; both arguments may be ignored,
        // the standard library has them from an initialiser of its own.
        #[unsafe(no_mangle)]
        pub extern "C" fn main(_argc: i32, _argv: *const *const u8) -> i32 {
            $crate::signal::ignore_broken_pipes();
            $run()
        }
    };
}
