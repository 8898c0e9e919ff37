//! Asks for a password, where somebody looks on.

/// Asks at the terminal without showing the answer; none if there is no terminal.
pub(super) fn ask(question: &str) -> std::io::Result<Option<String>> {
    let terminal = console::Term::stderr();
    if !terminal.is_term() {
        return Ok(None);
    }
    terminal.write_str(question)?;
    terminal.read_secure_line().map(Some)
}
