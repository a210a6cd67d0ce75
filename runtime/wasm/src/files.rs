//! Calls that change directories and report about files, with the error that the system gave.
//!
//! They are wasmtime's, except for what [`errno`] adds. Both linkers let a later definition shadow an earlier one.

use wasmtime::component::{Linker as ComponentLinker, Resource};
use wasmtime::{AsContextMut as _, Caller, Extern, Linker};
use wasmtime_wasi::filesystem::WasiFilesystemView as _;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p1::types::Errno;
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self as p1, WasiSnapshotPreview1 as _};
use wasmtime_wasi::p2::FsError;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    Descriptor, DescriptorFlags, ErrorCode, HostDescriptor as _, NewTimestamp, OpenFlags, PathFlags,
};
use wiggle::GuestMemory;

use crate::errno;
use crate::run::Host;

/// For WASI 0.1, where all values are numbers.
pub(crate) fn add_to_linker(linker: &mut Linker<WasiP1Ctx>) -> wasmtime::Result<()> {
    macro_rules! shadow {
        ($($function:ident($($argument:ident: $type:ty),*);)*) => {$(
            linker.func_wrap_async(
                "wasi_snapshot_preview1",
                stringify!($function),
                |mut caller: Caller<'_, WasiP1Ctx>, ($($argument,)*): ($($type,)*)| Box::new(async move {
                    let fuel = caller.as_context_mut().hostcall_fuel();
                    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
                        wasmtime::bail!("the module exports no memory");
                    };
                    let (memory, context) = memory.data_and_store_mut(&mut caller);
                    context.set_hostcall_fuel(fuel);
                    errno::forget();
                    let answer = p1::$function(context, &mut GuestMemory::Unshared(memory), $($argument),*).await?;
                    Ok(match errno::name() {
                        Some(name) if answer == Errno::Io as i32 => Errno::from(name) as i32,
                        _ => answer,
                    })
                }),
            )?;
        )*};
    }
    shadow! {
        fd_filestat_set_times(fd: i32, atim: i64, mtim: i64, set: i32);
        path_create_directory(fd: i32, path: i32, length: i32);
        path_filestat_set_times(fd: i32, flags: i32, path: i32, length: i32, atim: i64, mtim: i64, set: i32);
        path_link(fd: i32, flags: i32, path: i32, length: i32, new_fd: i32, new_path: i32, new_length: i32);
        path_open(fd: i32, flags: i32, path: i32, length: i32, oflags: i32, base: i64, inheriting: i64, fdflags: i32, opened: i32);
        path_remove_directory(fd: i32, path: i32, length: i32);
        path_rename(fd: i32, path: i32, length: i32, new_fd: i32, new_path: i32, new_length: i32);
        path_symlink(target: i32, target_length: i32, fd: i32, path: i32, length: i32);
        path_unlink_file(fd: i32, path: i32, length: i32);
    }
    Ok(())
}

/// For WASI 0.2.
pub(crate) fn add_to_component_linker(linker: &mut ComponentLinker<Host>) -> wasmtime::Result<()> {
    // The version that wasmtime defines; programs of others are given the same.
    let mut types = linker.instance("wasi:filesystem/types@0.2.12")?;
    macro_rules! shadow {
        ($($name:literal $method:ident($($argument:ident: $type:ty),*);)*) => {$(
            types.func_wrap_async(
                concat!("[method]descriptor.", $name),
                |mut store, (descriptor, $($argument,)*): (Resource<Descriptor>, $($type,)*)| Box::new(async move {
                    errno::forget();
                    let answer = store.data_mut().filesystem().$method(descriptor, $($argument),*).await;
                    Ok((answer.map(Ok).or_else(told)?,))
                }),
            )?;
        )*};
    }
    shadow! {
        "create-directory-at" create_directory_at(path: String);
        "link-at" link_at(flags: PathFlags, path: String, new: Resource<Descriptor>, new_path: String);
        "open-at" open_at(flags: PathFlags, path: String, open: OpenFlags, rights: DescriptorFlags);
        "remove-directory-at" remove_directory_at(path: String);
        "rename-at" rename_at(path: String, new: Resource<Descriptor>, new_path: String);
        "set-times" set_times(atim: NewTimestamp, mtim: NewTimestamp);
        "set-times-at" set_times_at(flags: PathFlags, path: String, atim: NewTimestamp, mtim: NewTimestamp);
        "symlink-at" symlink_at(target: String, path: String);
        "unlink-file-at" unlink_file_at(path: String);
    }
    Ok(())
}

/// The program's error, or a trap.
fn told<T>(error: FsError) -> wasmtime::Result<Result<T, ErrorCode>> {
    Ok(Err(match (error.downcast()?, errno::name()) {
        (ErrorCode::Io, Some(name)) => name,
        (code, _) => code,
    }))
}
