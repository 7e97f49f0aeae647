//! `demo`: every application at once, by the end of the path; whatever comes before it is nginx's business.

use super::Route;

pub(super) fn route(path: &str) -> Option<Route> {
    let mut from_end = path.rsplit('/');
    match (from_end.next()?, from_end.next()?) {
        ("echo", _) => Some(Route::Echo),
        ("hello", _) => Some(Route::Hello),
        (name, "rooms") if !name.is_empty() => Some(Route::Room(name.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_path_decides() {
        assert_eq!(route("/echo"), Some(Route::Echo));
        assert_eq!(route("/ws/echo"), Some(Route::Echo));
        assert_eq!(route("/ws/deep/hello"), Some(Route::Hello));
        assert_eq!(route("/rooms/blue"), Some(Route::Room("blue".into())));
        assert_eq!(route("/a/rooms/blue"), Some(Route::Room("blue".into())));
    }

    #[test]
    fn everything_else_is_not_found() {
        for path in ["", "/", "/ws/", "/echo/", "/rooms", "/rooms/", "/rooms/a/b", "/echoes", "*"] {
            assert_eq!(route(path), None, "{path}");
        }
    }
}
