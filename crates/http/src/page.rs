//! Paging by cursor: opaque to clients, JSON inside.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Problem;

/// `?cursor=&limit=` of a list.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// `next_cursor` of the page before; none for the first page.
    #[serde(default)]
    pub cursor: Option<String>,
    /// Items a page, 1 to 200; 50 when left out.
    #[serde(default)]
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<u32>,
}

impl PageQuery {
    /// Items a page.
    ///
    /// # Errors
    /// 400 when it is 0 or above 200.
    pub fn limit(&self) -> Result<u32, Problem> {
        match self.limit {
            None => Ok(50),
            Some(limit @ 1..=200) => Ok(limit),
            Some(limit) => Err(Problem::bad_request("invalid_limit", format!("limit is {limit}: use 1 to 200"))),
        }
    }

    /// Where the page begins.
    ///
    /// # Errors
    /// 400 when the cursor is not one that we gave.
    pub fn position<T: DeserializeOwned>(&self) -> Result<Option<T>, Problem> {
        self.cursor.as_deref().map(Cursor::decode).transpose()
    }
}

/// A position in a list, as text.
#[derive(Clone, Copy, Debug)]
pub struct Cursor;

impl Cursor {
    /// The text of a position.
    #[must_use]
    pub fn encode<T: Serialize>(position: &T) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(position).unwrap_or_default())
    }

    /// The position of a text.
    ///
    /// # Errors
    /// 400 when the text is not one that we gave.
    pub fn decode<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
        URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or_else(|| {
            Problem::bad_request("invalid_cursor", "the cursor is not one of this list: start without a cursor")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_foreign_ones_are_refused() {
        let text = Cursor::encode(&(7, "a"));
        assert_eq!(Cursor::decode::<(i32, String)>(&text).unwrap(), (7, "a".to_owned()));
        assert_eq!(Cursor::decode::<(i32, String)>("%%").unwrap_err().code(), "invalid_cursor");
    }
}
