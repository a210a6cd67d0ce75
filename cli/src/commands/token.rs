//! `berth token`.

use berth_api_types::public::{CreateToken, CreatedToken, Token};
use http::Method;

use super::{Context, encode};
use crate::args;
use crate::output;

/// Makes, lists and ends tokens.
pub(crate) async fn run(context: &Context, command: args::Token) -> anyhow::Result<()> {
    match command {
        args::Token::Create { name, expires_in_days } => {
            let created: CreatedToken =
                context.client.post("/api/v1/tokens", &CreateToken { name, expires_in_days }).await?;
            output::result(context.output, &created, |created| created.secret.clone())
        }
        args::Token::List => {
            let tokens: Vec<Token> = context.client.list("/api/v1/tokens?limit=200").await?;
            output::result(context.output, &tokens, |tokens| {
                let rows: Vec<Vec<String>> = tokens
                    .iter()
                    .map(|token| {
                        let time = |time: Option<chrono::DateTime<chrono::Utc>>| {
                            time.map_or_else(|| "never".to_owned(), |time| time.format("%Y-%m-%d %H:%M").to_string())
                        };
                        vec![
                            token.id.to_string(),
                            token.name.clone(),
                            format!("{}…", token.prefix),
                            time(token.expires_at),
                            time(token.last_used_at),
                        ]
                    })
                    .collect();
                output::table(&["ID", "NAME", "TOKEN", "EXPIRES", "LAST USED"], &rows)
            })
        }
        args::Token::Revoke { id } => {
            let path = format!("/api/v1/tokens/{}", encode(&id));
            let _: serde_json::Value = context.client.json(Method::DELETE, &path, None::<&()>, &[]).await?;
            output::result(context.output, &serde_json::json!({ "revoked": id }), |_| "revoked".to_owned())
        }
    }
}
