//! The scripts, the keys of a sale, and how their answers are read.

use std::sync::LazyLock;

use redis::{Cmd, Value};

use crate::model::{Error, Result, SaleId, Units};

/// A script and the name that Redis remembers it by.
pub(super) struct Script {
    text: &'static str,
    hash: LazyLock<String>,
}

macro_rules! scripts {
    ($($name:ident: $($file:literal),+;)*) => {
        $(pub(super) static $name: Script = Script {
            text: concat!($(include_str!(concat!("../", $file))),+),
            hash: LazyLock::new(|| redis::Script::new($name.text).get_hash().to_owned()),
        };)*
    };
}

scripts! {
    ADMIT: "prelude.lua", "admit.lua";
    FOLLOW: "prelude.lua", "follow.lua";
    PROBE: "prelude.lua", "probe.lua";
    VIEW: "prelude.lua", "view.lua";
    FIND: "prelude.lua", "find.lua";
    PENDING: "prelude.lua", "pending.lua";
    OPEN: "prelude.lua", "open.lua";
    SHUT: "prelude.lua", "shut.lua";
    FILL: "fill.lua";
    LOAD: "prelude.lua", "load.lua";
}

/// A call of a script: the command that names it, which Redis may have forgotten.
pub(super) struct Call {
    script: &'static Script,
    command: Cmd,
}

impl Script {
    /// A call over these keys; arguments follow.
    pub(super) fn over(&'static self, keys: &[String]) -> Call {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.hash.as_str()).arg(keys.len()).arg(keys);
        Call { script: self, command }
    }
}

impl Call {
    /// One more argument.
    pub(super) fn arg(mut self, arg: impl redis::ToRedisArgs) -> Self {
        self.push(arg);
        self
    }

    /// One more argument.
    pub(super) fn push(&mut self, arg: impl redis::ToRedisArgs) {
        self.command.arg(arg);
    }

    /// The command that names the script.
    pub(super) fn by_name(&self) -> &Cmd {
        &self.command
    }

    /// The same command, with the script itself in place of its name.
    pub(super) fn by_text(&self) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(self.script.text);
        for arg in self.command.args_iter().skip(2) {
            if let redis::Arg::Simple(bytes) = arg {
                command.arg(bytes);
            }
        }
        command
    }
}

/// The keys of a sale. What stands in braces decides the slot of a cluster, so that a sale lives on one node.
pub(super) struct Keys {
    sale: SaleId,
    all: [String; 5],
}

impl Keys {
    pub(super) fn new(sale: &SaleId) -> Self {
        let key = |part: &str| format!("sluice:{{{sale}}}:{part}");
        Self { sale: sale.clone(), all: ["head", "pending", "known", "ids", "used"].map(key) }
    }

    /// In the sequence that the scripts expect.
    pub(super) fn all(&self) -> &[String; 5] {
        &self.all
    }

    /// Keys for the parts of one load: pending, known, ids, used.
    pub(super) fn parts(&self, stamp: &str) -> [String; 4] {
        ["pending", "known", "ids", "used"].map(|part| format!("sluice:{{{}}}:load:{stamp}:{part}", self.sale))
    }
}

/// What a script answered, read from front to back. Anything else than expected is damage: another program wrote there.
#[derive(Default)]
pub(super) struct Answer(std::vec::IntoIter<Value>);

impl Answer {
    /// The script's list, or its one number; or the word why there is none, which is always a reason to know nothing.
    pub(super) fn read(value: Value) -> Result<Result<Answer, String>> {
        match value {
            Value::Array(list) => Ok(Ok(Answer(list.into_iter()))),
            Value::Int(number) => Ok(Ok(Answer(vec![Value::Int(number)].into_iter()))),
            Value::BulkString(word) => Ok(Err(String::from_utf8_lossy(&word).into_owned())),
            other => Err(damaged(&format!("a script answered {other:?}"))),
        }
    }

    pub(super) fn next(&mut self) -> Option<Value> {
        self.0.next()
    }

    /// Whether everything was read.
    pub(super) fn is_empty(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    pub(super) fn number<T: TryFrom<i64>>(&mut self) -> Result<T> {
        match self.next() {
            Some(Value::Int(number)) => {
                T::try_from(number).map_err(|_| damaged(&format!("a script answered {number}, out of range")))
            }
            other => Err(damaged(&format!("a script answered {other:?} in place of a number"))),
        }
    }

    pub(super) fn units(&mut self) -> Result<Units> {
        Units::new(self.number()?).map_err(|invalid| damaged(&invalid.0))
    }

    pub(super) fn flag(&mut self) -> Result<bool> {
        Ok(self.number::<i64>()? == 1)
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>> {
        match self.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            other => Err(damaged(&format!("a script answered {other:?} in place of a text"))),
        }
    }

    pub(super) fn text(&mut self) -> Result<String> {
        String::from_utf8(self.bytes()?).map_err(|_| damaged("a script answered bytes in place of a text"))
    }
}

/// What Redis holds is not what this program wrote there.
pub(super) fn damaged(why: &str) -> Error {
    Error::Damaged("gate", why.to_owned())
}
