//! What the documentation says can be followed: links lead somewhere, commands and options exist, directives are the
//! module's, configurations load. Each check is a function that gives complaints, and is shown to find what is wrong.

mod commands;
mod configurations;
mod examples;
mod figures;
mod links;
mod markdown;
mod names;

/// Panics with the complaints, if there are any.
fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// Panics unless there is one complaint, with that text in it.
fn one(complaints: &[String], text: &str) {
    assert!(matches!(complaints, [only] if only.contains(text)), "{text}: {complaints:#?}");
}
