//! Asks for a password at a terminal.

/// Asks at the terminal without showing the answer. `None` if stderr is not a terminal.
pub(super) fn ask(question: &str) -> std::io::Result<Option<String>> {
    let terminal = console::Term::stderr();
    if !terminal.is_term() {
        return Ok(None);
    }
    terminal.write_str(question)?;
    terminal.read_secure_line().map(Some)
}
