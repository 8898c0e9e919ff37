//! Files that people name. Pipes and devices are not opened, because reading them
//! may never end, and no file is read without a limit.

use std::fs::File;
use std::io::{Error, ErrorKind, Read as _, Result};
use std::path::Path;

/// Largest text file that a person writes (configuration, keys, scenarios), bytes.
pub const TEXT_BYTES_MAX: u64 = 16 << 20;

/// Opens a regular file.
///
/// # Errors
/// It does not exist, may not be read, or is not a regular file.
pub fn open(path: &Path) -> Result<File> {
    // Opening a pipe would wait for a writer, so the kind is checked before; and
    // after, because the file may have been replaced.
    is_file(&std::fs::metadata(path)?)?;
    let file = File::open(path)?;
    is_file(&file.metadata()?)?;
    Ok(file)
}

/// Whether something has that name, be it a link that leads nowhere: who reads it then gets
/// an error, and no silence as if there were nothing.
#[must_use]
pub fn is_there(path: &Path) -> bool {
    let found = std::fs::symlink_metadata(path);
    found.map_or_else(|error| error.kind() != ErrorKind::NotFound, |_| true)
}

fn is_file(found: &std::fs::Metadata) -> Result<()> {
    let kind = found.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let what = if kind.is_dir() {
        "a folder"
    } else {
        "a pipe, a socket or a device"
    };
    let why = format!("it is {what}, and only files are read");
    Err(Error::new(ErrorKind::InvalidInput, why))
}

/// Reads a file of at most `max` bytes.
///
/// # Errors
/// It is larger, or as with [`open`].
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    open(path)?
        .take(max.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        let why = format!("it has more than {max} bytes, which is the limit");
        return Err(Error::new(ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// Reads a text file of at most `max` bytes.
///
/// # Errors
/// It is not text in UTF-8, or as with [`read`].
pub fn read_text(path: &Path, max: u64) -> Result<String> {
    let text = String::from_utf8(read(path, max)?);
    text.map_err(|_| Error::new(ErrorKind::InvalidData, "it is not text in UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_read_and_only_so_much() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("file");
        std::fs::write(&place, "four").expect("writable");
        assert_eq!(read(&place, 4).expect("fits"), b"four");
        assert_eq!(read_text(&place, 9).expect("fits"), "four");
        let says = |result: Result<Vec<u8>>| result.expect_err("refused").to_string();
        assert!(says(read(&place, 3)).contains("more than 3 bytes"));
        assert!(says(read(folder.path(), 9)).contains("a folder"));
        std::fs::write(&place, b"\xff").expect("writable");
        assert!(read_text(&place, 9).is_err());
        let nothing = read(&folder.path().join("nothing"), 9);
        assert_eq!(nothing.expect_err("nothing").kind(), ErrorKind::NotFound);
        #[cfg(unix)]
        {
            for device in ["/dev/zero", "/dev/null"] {
                assert!(says(read(Path::new(device), 9)).contains("a device"));
            }
            let link = folder.path().join("link");
            std::os::unix::fs::symlink("/dev/zero", &link).expect("a link");
            assert!(says(read(&link, 9)).contains("a device"));
            let socket = folder.path().join("socket");
            let _held = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
            assert!(says(read(&socket, 9)).contains("a socket"));
        }
    }
}
