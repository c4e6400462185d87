//! The holes that Lua 5.1 and Redis's libraries had: each known attack, tried here. Where they harmed
//! memory, the engine must answer or refuse, and go on; `Expect::Exactly` says which.

use crate::harness::Node;

/// What an attack is answered.
enum Expect {
    /// This.
    Exactly(&'static str),
    /// An error with these words.
    Refused(&'static str),
}
use Expect::{Exactly, Refused};

/// CVE-2014-5461: a vararg function with many parameters needs more stack than was checked for.
#[test]
fn a_function_with_the_most_parameters_and_varargs_has_its_stack() {
    let parameters: Vec<String> = (1..=199).map(|n| format!("p{n}")).collect();
    let list = parameters.join(",");
    let call = format!("local function f({list}, ...) return p1, p199, select('#', ...) end ");
    #[rustfmt::skip] // columns
    let table = [
        // The stack is as small as it gets in a new coroutine, and moves with each call.
        ("return select('#', coroutine.wrap(f)())",                            ":3"),
        ("return {coroutine.wrap(function() return select('#', f()) end)()}",  "*1 :3"),
        ("local t = {} for i = 1, 300 do t[i] = i end return {coroutine.wrap(f)(unpack(t))}", "*3 :1 :199 :101"),
        ("local function deep(n) if n == 0 then return select('#', f()) end return (deep(n - 1)) end \
          local last for n = 0, 150 do last = coroutine.wrap(deep)(n) end return last", ":3"),
        ("local n = 0 for i = 1, 2000 do n = n + select('#', f(i)) end return n", ":6000"),
    ];
    let mut node = Node::new();
    for (body, expected) in table {
        assert_eq!(node.eval(&format!("{call}{body}")), expected, "{body}");
    }
    let more = format!("local function f({list}, p200, p201) end");
    let refused = node.eval(&more);
    assert!(refused.contains("has more than 200 local variables"), "{refused}");
}

/// CVE-2015-4335: bytecode is trusted by Lua, so none may come from outside.
#[test]
fn bytecode_goes_neither_in_nor_out() {
    #[rustfmt::skip] // columns
    let table = [
        ("\x1bLuaQ",                                                     Refused("Error compiling script")),
        ("return {loadstring('\\27LuaQ')}",                              Exactly("*0")),
        ("return {select(2, loadstring('\\27LuaQ'))}",                   Exactly("*1 \"bytecode is not allowed\"")),
        ("local n = 0 return {select(2, load(function() n = n + 1 return ({'\\27', 'LuaQ'})[n] end))}",
                                                                         Exactly("*1 \"bytecode is not allowed\"")),
        ("local n = 0 return {select(2, load(function() n = n + 1 return ({'\\27LuaQ'})[n] end))}",
                                                                         Exactly("*1 \"bytecode is not allowed\"")),
        ("return string.dump(function() end)",                           Refused("attempt to call field 'dump'")),
        ("return ('').dump(function() end)",                             Refused("attempt to call field 'dump'")),
        ("return type(string.dump)",                                     Exactly("\"nil\"")),
        ("return dofile('/etc/passwd')",                                 Refused("nonexistent global variable 'dofile'")),
        ("return loadfile('/etc/passwd')",                               Refused("nonexistent global variable 'loadfile'")),
        ("return require('os')",                                         Refused("nonexistent global variable 'require'")),
        ("return package.loaded",                                        Refused("nonexistent global variable 'package'")),
        ("return debug.getregistry()",                                   Refused("nonexistent global variable 'debug'")),
        ("return io.open('/etc/passwd')",                                Refused("nonexistent global variable 'io'")),
        ("return os.execute('true')",                                    Refused("attempt to call field 'execute'")),
        ("return newproxy(true)",                                        Refused("nonexistent global variable 'newproxy'")),
        ("return getfenv(0)",                                            Refused("nonexistent global variable 'getfenv'")),
        ("return setfenv(1, {})",                                        Refused("nonexistent global variable 'setfenv'")),
    ];
    attempt(table);
}

/// CVE-2018-11218, CVE-2018-11219, CVE-2020-14147 and CVE-2022-24834: lengths and depths in `struct`,
/// `cmsgpack` and `cjson` that overflowed. CVE-2024-31449: the width of `bit.tohex`.
#[test]
fn lengths_and_depths_of_the_libraries_do_not_overflow() {
    const DEEP: &str = "local t = {} for i = 1, 100000 do t = {t} end ";
    #[rustfmt::skip] // columns
    let table = [
        ("return struct.unpack('I2147483647', string.rep('x', 20))",       Refused("larger than limit of 32")),
        ("return struct.unpack('i4294967296', string.rep('x', 20))",       Refused("integral size overflow")),
        ("return struct.unpack('c2147483647', 'abc', 2147483647)",         Refused("data string too short")),
        ("return struct.unpack('bc0', '\\255abc')",                        Exactly("\"\"")), // -1 is none
        ("return struct.unpack('bc0', '\\127abc')",                        Refused("data string too short")),
        ("return struct.unpack('dc0', struct.pack('d', 1e300) .. 'abc')",  Refused("data string too short")),
        ("return struct.unpack('dc0', struct.pack('d', 0/0) .. 'abc')",    Exactly("\"\"")),
        ("return struct.unpack('s', 'no end')",                            Refused("unfinished string")),
        ("return struct.unpack('i', 'abcd', 2147483648)",                  Refused("data string too short")),
        ("return struct.unpack('i', 'abcd', -1)",                          Refused("offset must be 1 or greater")),
        ("return struct.size('c2147483647c2147483647c2147483647') > 2^32", Exactly(":1")),
        ("return struct.pack('!2147483648', 1)",                           Refused("integral size overflow")),
        ("return struct.pack('!1073741824i', 1)",                          Exactly("\"\\x01\\x00\\x00\\x00\"")),
        ("return #struct.pack(string.rep('i', 9000), unpack({}, 1, 7000))", Refused("bad argument")),
        ("return {cmsgpack.unpack('\\221\\255\\255\\255\\255')}",          Refused("Missing bytes")),
        ("return {cmsgpack.unpack('\\223\\255\\255\\255\\255')}",          Refused("Missing bytes")),
        ("return {cmsgpack.unpack('\\219\\255\\255\\255\\255x')}",         Refused("Missing bytes")),
        ("return {cmsgpack.unpack(string.rep('\\145', 100000))}",          Refused("too many nested values")),
        ("return select('#', cmsgpack.unpack(string.rep('\\1', 100000)))", Refused("too many values to unpack")),
        ("return {cmsgpack.unpack_limit('\\1\\2', 2147483648, 4294967296)}", Refused("greater than input length")),
        ("return {cmsgpack.unpack_limit('\\1\\2', -1)}",                   Exactly("*1 :0")),
        ("return {cmsgpack.unpack_one('\\1\\2', -1)}",                     Refused("greater than input length")),
        ("local t = {} for i = 1, 7000 do t[i] = i end return #cmsgpack.pack(unpack(t)) > 7000", Exactly(":1")),
        ("return cjson.decode(string.rep('[', 100000))",                   Refused("too many nested data structures")),
        ("return cjson.decode(string.rep('{\"a\":', 100000))",             Refused("too many nested data structures")),
        ("return #cjson.encode(string.rep('\\0', 1000000))",               Exactly(":6000002")),
        ("local t = {} t.t = t return cjson.encode(t)",                    Refused("excessive depth")),
        ("local t = {} t.t = t return #cmsgpack.pack(t) < 100",            Exactly(":1")),
        ("return cjson.encode({[2147483647] = 1})",                        Refused("excessively sparse array")),
        ("return bit.tohex(65535, -2147483648)",                           Exactly("\"0000FFFF\"")),
        ("return bit.tohex(65535, 2147483647)",                            Exactly("\"0000ffff\"")),
        ("return bit.lshift(1, 2147483647)",                               Exactly(":-2147483648")),
        ("return bit.rol(1, -2147483648)",                                 Exactly(":1")),
    ];
    attempt(table);
    let mut node = Node::new();
    let deep = node.eval(&format!("{DEEP} return cjson.encode(t)"));
    assert!(deep.contains("excessive depth"), "{deep}");
    assert_eq!(node.eval(&format!("{DEEP} return #cmsgpack.pack(t) < 100")), ":1");
}

/// CVE-2025-46817: the number of results of `unpack` overflowed an int.
#[test]
fn ranges_of_unpack_that_overflow_are_refused() {
    let too_many = || Refused("too many results to unpack");
    #[rustfmt::skip] // columns
    let table = [
        ("return {unpack({1,2,3}, 0, 2147483647)}",            too_many()),
        ("return {unpack({1,2,3}, -1, 2147483647)}",           too_many()),
        ("return {unpack({1,2,3}, -2147483648, 2147483647)}",  too_many()),
        ("return {unpack({1,2,3}, -2147483648)}",              too_many()),
        ("return {unpack({1,2,3}, '-2147483648', '0')}",       too_many()),
        ("return {unpack({1,2,3}, 1, 8001)}",                  too_many()),
        ("return {unpack({1,2,3}, 1, 1/0)}",                   too_many()),
        ("return {unpack({1,2,3}, 0/0, 5)}",                   too_many()),
        ("return {unpack({1,2,3}, 4294967297, 4294967299)}",   too_many()),
        ("return pcall(unpack, {}, 0, 2147483647) and 1 or 2", Exactly(":2")),
        ("return select('#', unpack({}, 1, 7997))",            Exactly(":7997")),
        ("return {unpack({}, 1, 7998)}",                       too_many()),
        ("return {unpack({1,2,3}, 2147483647, 2147483647)}",   Exactly("*0")),
        ("return {unpack({1,2,3}, 2147483647, -2147483648)}",  Exactly("*0")),
        ("return {unpack({1,2,3})}",                           Exactly("*3 :1 :2 :3")),
        ("return {unpack({1,2,3}, 2)}",                        Exactly("*2 :2 :3")),
        ("return {unpack({1,2,3}, '2', 3.9)}",                 Exactly("*2 :2 :3")),
        ("return {unpack({1,2,3}, nil, 2)}",                   Exactly("*2 :1 :2")),
        ("return select('#', unpack({}, 1, 7000))",            Exactly(":7000")),
        ("local a = unpack(1)",                                Refused("user_script:1: bad argument #1 to")),
        ("local a = unpack({}, 'x')",                          Refused("user_script:1: bad argument #2 to")),
        ("local a = unpack({}, 1, false)",                     Refused("user_script:1: bad argument #3 to")),
    ];
    attempt(table);
}

/// CVE-2025-46818: what all scripts share, among it the metatables of basic types, cannot be changed.
#[test]
fn nothing_that_scripts_share_can_be_changed() {
    #[rustfmt::skip] // columns
    let table = [
        ("getmetatable('').__index = function() return 'mine' end",  Refused("attempt to index a boolean value")),
        ("return getmetatable('').__metatable",                      Refused("attempt to index a boolean value")),
        ("setmetatable('', {})",                                     Refused("bad argument #1 to")),
        ("getmetatable(string).__index = {}",                        Refused("attempt to index a boolean value")),
        ("getmetatable(_G).__index = {}",                            Refused("attempt to index a boolean value")),
        ("setmetatable(redis, {})",                                  Refused("Attempt to modify a readonly table")),
        ("redis.call = 1",                                           Refused("Attempt to modify a readonly table")),
        ("table.insert(redis, 1)",                                   Refused("Attempt to modify a readonly table")),
        ("rawset(string, 'rep', 1)",                                 Refused("Attempt to modify a readonly table")),
        ("table.sort = nil",                                         Refused("Attempt to modify a readonly table")),
        ("KEYS = {}",                                                Refused("Attempt to modify a readonly table")),
        ("return getmetatable(redis.call)",                          Exactly("nil")),
        ("return ('x'):rep(3)",                                      Exactly("\"xxx\"")),
    ];
    attempt(table);
}

/// CVE-2025-46819: long brackets whose length was counted in an int; CVE-2024-31228 and its kin: nesting.
#[test]
fn long_brackets_and_deep_nesting_are_read_or_refused() {
    let mut node = Node::new();
    let wide = "=".repeat(1_000_000);
    assert_eq!(node.eval(&format!("return #[{wide}[abc]{wide}]")), ":3");
    let open = node.eval(&format!("return [{wide}[abc]{wide}"));
    assert!(open.starts_with("-ERR Error compiling script"), "{:.200}", open);
    let not_open = node.eval(&format!("return [{wide}abc"));
    assert!(not_open.contains("invalid long string delimiter"), "{:.200}", not_open);
    for nested in ["(", "{", "function() return ", "not ", "- ", "x["] {
        let answer = node.eval(&format!("return {}", nested.repeat(100_000)));
        assert!(answer.starts_with("-ERR Error compiling script"), "{nested}: {answer:.200}");
        let inner =
            format!("local f, why = loadstring('return ' .. string.rep('{nested}', 100000)) return why");
        let answer = node.eval(&inner);
        assert!(answer.starts_with('"'), "{nested}: {answer:.200}");
    }
    assert_eq!(node.eval("return 1"), ":1");
}

/// CVE-2025-49844: a collection while a chunk is parsed freed the chunk's name. CVE-2024-46981: one while a
/// state is closed. Here no collection begins within the parser, whatever garbage there is, and states are
/// thrown away in the middle of a script.
#[test]
fn chunks_are_parsed_and_states_closed_amid_garbage() {
    let mut node = Node::new();
    let parse = "local n = 0 for i = 1, 3000 do \
                 local name, body = '=' .. i .. ('n'):rep(50), 'local a' .. i .. ' = {' .. ('{1},'):rep(20) .. '} return ' .. i \
                 n = n + loadstring(body, name)() + #load(function() local b = body body = nil return b end, name .. 'x')() * 0 \
                 end return n";
    let parse = parse
        .replace(" + #load(", " + select('#', load(")
        .replace(", name .. 'x')() * 0", ", name .. 'x')) * 0");
    assert_eq!(node.eval(&parse), ":4501500");
    let broken = "for i = 1, 3000 do local f, why = loadstring('return {' .. ('{1},'):rep(50), '=' .. i .. ('n'):rep(60)) \
                  if f or not string.find(why, i .. 'nnn', 1, true) then return why end end return 'all named'";
    assert_eq!(node.eval(broken), "\"all named\"");
    let closing = "local t = {} for i = 1, 1e7 do \
                   t[i] = setmetatable({coroutine.wrap(function() end)}, {__gc = function() redis.call('set', 'k', 'v') end}) end";
    for _ in 0..2 {
        let ended = node.eval(closing);
        assert!(ended.contains("was ended"), "{ended}");
        assert_eq!(node.eval("return redis.call('exists', 'k')"), ":0");
    }
}

/// CVE-2022-24735 and its kin: nothing of one script is left for the next.
#[test]
fn a_script_finds_nothing_of_the_one_before() {
    let mut node = Node::new();
    assert!(node.eval("string.x = 1").contains("readonly"));
    assert_eq!(node.eval("pcall(function() left = 1 end) return 1"), ":1");
    assert!(node.eval("return left").contains("nonexistent global variable 'left'"));
    assert_eq!(node.eval("KEYS[1] = 'mine' ARGV[3] = 'mine' return 1"), ":1");
    assert_eq!(node.eval("return {KEYS[1], #ARGV}"), "*2 \"key\" :2");
}

fn attempt(table: impl IntoIterator<Item = (&'static str, Expect)>) {
    let mut node = Node::new();
    for (body, expected) in table {
        let answer = node.eval(body);
        match expected {
            Exactly(text) => assert_eq!(answer, text, "{body}"),
            Refused(words) => {
                let refused = answer.starts_with('-') && answer.contains(words);
                assert!(refused, "{body}: {answer:.300} and not {words}");
            }
        }
        assert_eq!(node.eval("return 1"), ":1", "after {body}");
    }
}
