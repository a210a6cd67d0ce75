//! Standard streams of a process in the making.

/// The three setters of a builder that has `streams: [Option<OwnedFd>; 3]`. `$builder` is an expression that makes one, `$end` the method
/// that ends it: both for the example of each.
macro_rules! standard_streams {
    ($builder:literal, $end:literal) => {
        standard_streams!(@one 0, stdin, "Standard input", "read", $builder, $end);
        standard_streams!(@one 1, stdout, "Standard output", "write", $builder, $end);
        standard_streams!(@one 2, stderr, "Standard error", "write", $builder, $end);
    };
    (@one $index:literal, $name:ident, $what:literal, $side:literal, $builder:literal, $end:literal) => {
        #[doc = concat!($what, "; the null device without it.")]
        ///
        /// ```no_run
        /// let (read, write) = std::io::pipe().unwrap();
        #[doc = concat!($builder, ".", stringify!($name), "(", $side, ".into()).", $end, "()?;")]
        /// # Ok::<(), hull::Error>(())
        /// ```
        #[must_use]
        pub fn $name(mut self, fd: std::os::fd::OwnedFd) -> Self {
            self.streams[$index] = Some(fd);
            self
        }
    };
}
