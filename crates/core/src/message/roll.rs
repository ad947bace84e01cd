//! The membership list between core types and the wire.

use super::wire::{bad, exact};
use super::{DecodeError, MAX_MESSAGE, RollPart, proto};
use crate::membership::{Founding, MAX_BODY, Signed, Statement};
use crate::version::DeviceId;

impl RollPart {
    /// A whole list as messages that each stay below [`MAX_MESSAGE`]; at least one.
    pub fn split(founding: Founding, statements: impl IntoIterator<Item = Signed>) -> Vec<Self> {
        // Tags, lengths and the signature beside the body.
        const BESIDE: usize = 80;
        let part = |statements| Self {
            founding,
            statements,
        };
        let (mut parts, mut now, mut bytes) = (Vec::new(), Vec::new(), 0);
        for signed in statements {
            let len = signed.statement.encode().len() + BESIDE;
            if bytes + len > MAX_MESSAGE / 2 {
                parts.push(part(std::mem::take(&mut now)));
                bytes = 0;
            }
            bytes += len;
            now.push(signed);
        }
        parts.push(part(now));
        parts
    }
}

pub(super) fn to_wire(part: &RollPart) -> proto::Roll {
    proto::Roll {
        founder: part.founding.founder.0.to_vec(),
        nonce: part.founding.nonce.to_vec(),
        statements: part
            .statements
            .iter()
            .map(|s| proto::Statement {
                body: s.statement.encode(),
                signature: s.signature.to_vec(),
            })
            .collect(),
    }
}

pub(super) fn from_wire(r: proto::Roll) -> Result<RollPart, DecodeError> {
    Ok(RollPart {
        founding: Founding {
            founder: DeviceId(exact(r.founder, "founder")?),
            nonce: exact(r.nonce, "nonce")?,
        },
        statements: r
            .statements
            .into_iter()
            .map(signed)
            .collect::<Result<_, _>>()?,
    })
}

fn signed(s: proto::Statement) -> Result<Signed, DecodeError> {
    if s.body.len() > MAX_BODY {
        return Err(bad(format!("a statement of more than {MAX_BODY} bytes")));
    }
    Ok(Signed {
        statement: Statement::decode(&s.body).ok_or_else(|| bad("no statement known here"))?,
        signature: exact(s.signature, "signature")?,
    })
}
