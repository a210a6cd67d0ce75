//! Paging by cursor: opaque to clients, JSON inside. A cursor names its list and the filter, because a position in one list would silently
//! mean something else in another.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Problem;

/// `?cursor=&limit=` of a list.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// `next_cursor` of the previous page, with the same filter; absent for the first page.
    #[serde(default)]
    pub cursor: Option<String>,
    /// Items per page, 1 to 200; 50 when absent.
    #[serde(default)]
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<u32>,
}

impl PageQuery {
    /// The requested page of the list `name`, filtered by `filter`.
    ///
    /// # Errors
    /// 400 when the limit is 0 or above 200, or the cursor is not one that we gave for this list and filter.
    pub fn of<P: DeserializeOwned>(&self, name: &'static str, filter: &impl Serialize) -> Result<Paging<P>, Problem> {
        let limit = match self.limit {
            None => 50,
            Some(limit @ 1..=200) => limit,
            Some(limit) => {
                return Err(Problem::bad_request("invalid_limit", format!("limit is {limit}: use 1 to 200")));
            }
        };
        let list = ListId::new(name, filter);
        let after = self.cursor.as_deref().map(|text| decode(text, list)).transpose()?;
        Ok(Paging { list, limit, after })
    }
}

/// One page of a list: where it begins and how long it is. `P` is a position in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Paging<P> {
    list: ListId,
    limit: u32,
    /// The last item of the page before; none for the first page.
    pub after: Option<P>,
}

impl<P: Serialize> Paging<P> {
    /// How many items to ask the store for: one more than a page has, which tells whether there is another page.
    #[must_use]
    pub fn one_more(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// Drops the extra item and makes the cursor of the next page, if there is one; `position` is that of an item.
    #[must_use]
    pub fn cut<T>(&self, items: &mut Vec<T>, position: impl Fn(&T) -> P) -> Option<String> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        items.last().filter(|_| more).map(|last| encode(self.list, &position(last)))
    }
}

/// A list and its filter as one number: a digest, so that cursors stay short and stay valid across processes and versions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct ListId(u32);

impl ListId {
    fn new(name: &str, filter: &impl Serialize) -> Self {
        let digest = Sha256::digest(serde_json::to_vec(&(name, filter)).unwrap_or_default());
        Self(digest.iter().take(4).fold(0, |id, byte| id << 8 | u32::from(*byte)))
    }
}

impl fmt::Debug for ListId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListId({:08x})", self.0)
    }
}

fn encode<P: Serialize>(list: ListId, position: &P) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&(list, position)).unwrap_or_default())
}

fn decode<P: DeserializeOwned>(text: &str, list: ListId) -> Result<P, Problem> {
    let given: Option<(ListId, P)> =
        URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    given.filter(|(of, _)| *of == list).map(|(_, position)| position).ok_or_else(|| {
        let detail = "the cursor is not one of this list with this filter: repeat the filter of the page before, or start without a cursor";
        Problem::bad_request("invalid_cursor", detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(cursor: Option<&str>, limit: u32) -> PageQuery {
        PageQuery { cursor: cursor.map(str::to_owned), limit: Some(limit) }
    }

    #[test]
    fn a_cursor_leads_from_page_to_page() {
        let first = query(None, 2).of::<(i32, String)>("pets", &"cats").unwrap();
        assert_eq!((first.one_more(), &first.after), (3, &None));
        let mut items = vec![1, 2, 3];
        let cursor = first.cut(&mut items, |item| (*item, "a".to_owned())).unwrap();
        assert_eq!(items, [1, 2]);

        let second = query(Some(&cursor), 2).of::<(i32, String)>("pets", &"cats").unwrap();
        assert_eq!(second.after, Some((2, "a".to_owned())));
        assert_eq!(second.cut(&mut vec![3, 4], |item| (*item, String::new())), None, "the last page is full");
        assert_eq!(second.cut(&mut Vec::<i32>::new(), |item| (*item, String::new())), None);
    }

    #[test]
    fn a_cursor_belongs_to_its_list_and_filter() {
        let cursor = query(None, 1).of::<i32>("pets", &"cats").unwrap().cut(&mut vec![1, 2], |item| *item).unwrap();
        let code = |cursor: &str, name, filter| {
            query(Some(cursor), 9).of::<i32>(name, &filter).map_err(|problem| problem.code().to_owned()).err()
        };
        assert_eq!(code(&cursor, "pets", "cats"), None);
        for (cursor, name, filter) in
            [(&*cursor, "pets", "dogs"), (&*cursor, "tools", "cats"), ("%%", "pets", "cats"), ("Nw", "pets", "cats")]
        {
            assert_eq!(code(cursor, name, filter).as_deref(), Some("invalid_cursor"), "{cursor} {name} {filter}");
        }
    }

    #[test]
    fn a_page_has_1_to_200_items() {
        for limit in [0, 201] {
            assert_eq!(query(None, limit).of::<i32>("pets", &()).unwrap_err().code(), "invalid_limit");
        }
        assert_eq!(PageQuery::default().of::<i32>("pets", &()).unwrap().one_more(), 51);
    }
}
