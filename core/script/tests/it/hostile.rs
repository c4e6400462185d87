//! Scripts that mean harm: each ends with an error, the engine stays usable, and both of two nodes
//! agree whatever their engines did before.

use crate::harness::Node;

#[test]
fn errors_carry_the_script_and_its_line() {
    let id = |body: &str| storage::store::scripts::ScriptId::of(body.as_bytes()).to_string();
    #[rustfmt::skip] // columns
    let table = [
        ("return redis.call('nosuch')", "ERR Unknown Redis command called from script", 1),
        ("return redis.call('get')", "ERR Wrong number of args calling Redis command from script", 1),
        ("return redis.call('subscribe','x')", "ERR This Redis command is not allowed from script", 1),
        ("return redis.call('eval','return 1',0)", "ERR This Redis command is not allowed from script", 1),
        ("return redis.call('script','load','x')", "ERR This Redis command is not allowed from script", 1),
        ("return redis.call('archipel.tick')", "ERR Unknown Redis command called from script", 1),
        ("return redis.call()", "ERR Please specify at least one argument for this redis lib call", 1),
        ("return redis.call('get', {})", "ERR Lua redis lib command arguments must be strings or integers", 1),
        ("error('boom')", "ERR user_script:1: boom", 1),
        ("\n\nerror('boom')", "ERR user_script:3: boom", 3),
        ("error({err='MY boom'})", "MY boom", 1),
        ("error()", "ERR nil", 1),
        ("error(12)", "ERR user_script:1: 12", 1),
        ("x=1", "ERR user_script:1: Attempt to modify a readonly table", 1),
        ("return x", "ERR user_script:1: Script attempted to access nonexistent global variable 'x'", 1),
        ("local t=nil; return t.y", "ERR user_script:1: attempt to index local 't' (a nil value)", 1),
        ("string.foo=1", "ERR user_script:1: Attempt to modify a readonly table", 1),
        ("redis.call=nil", "ERR user_script:1: Attempt to modify a readonly table", 1),
        ("rawset(_G,'x',1)", "ERR Attempt to modify a readonly table", 1),
        ("setmetatable(_G,{})", "ERR Attempt to modify a readonly table", 1),
        ("redis.log()", "ERR redis.log() requires two arguments or more.", 1),
        ("redis.setresp(5)", "ERR RESP version must be 2 or 3.", 1),
        ("redis.call('set','a','b','c','d')", "ERR syntax error", 1),
        ("local function f() return f()+1 end return f()", "ERR user_script:1: stack overflow", 1),
    ];
    let mut node = Node::new();
    for (body, expected, line) in table {
        let expected = format!("-{expected} script: {}, on @user_script:{line}.", id(body));
        assert_eq!(node.eval(body), expected, "{body}");
    }
}

#[test]
fn scripts_that_do_not_compile_are_not_remembered() {
    let mut node = Node::new();
    let broken = "-ERR Error compiling script (new function): user_script:1: unexpected symbol near '<eof>'";
    assert_eq!(node.eval("return ("), broken);
    assert_eq!(node.run(&[b"script", b"load", b"return ("]), broken);
    assert!(node.store.scripts().is_empty());
    assert!(node.eval("\x1bLua").starts_with("-ERR Error compiling script"));
    assert_eq!(node.eval("return {loadstring('\\27Lua')}"), "*0");
}

/// Bodies that need too much of something.
#[rustfmt::skip] // columns
const GREEDY: &[&str] = &[
    "while true do end",
    "while true do pcall(function() while true do end end) end",
    "while true do xpcall(function() while true do end end, function() while true do end end) end",
    "local f = coroutine.wrap(function() while true do end end) while true do pcall(f) end",
    "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
    "while true do coroutine.wrap(function() end)() end",
    "local s = 'x' while true do s = s .. s end",
    "local s = 'x' while true do pcall(function() s = s .. s end) end",
    "local t = {} for i = 1, 1e9 do t[i] = {i} end",
    "return string.find(string.rep('a', 100000), string.rep('.-', 20) .. 'b')",
    "while true do string.rep('x', 1e6) end",
    "local function f() return pcall(f) end while true do f() end",
    "return string.rep('x', 1e9):rep(1e9)",
    "return string.rep('', 1e15)",
    "table.insert({}, -2147483648, 1)",
    "local t = {} for i = 1, 200000 do t[i] = i % 7 end table.sort(t, function() return true end)",
    "return string.find(string.rep('a', 1e6), string.rep('a?', 1e6))",
    "return string.match(string.rep('(', 1e6), string.rep('(', 1e6))",
    "return string.gsub(string.rep('x', 1e6), '.', string.rep('y', 1e6))",
    "return string.format('%99999d', 1)",
    "return {unpack({}, 1, 1e8)}",
    "return loadstring(string.rep('(', 1e6))",
    "return loadstring('return ' .. string.rep('{', 1e6))",
    "error(setmetatable({}, {__tostring = function() error('again') end}))",
    "error(function() end)",
    "local t = setmetatable({}, {}) getmetatable(t).__index = t return t.x",
    "return struct.unpack('b', 'x', 0/0)",
    "return string.find('x', 'x', 0/0)",
    "return cmsgpack.unpack_one('x', 0/0)",
    "return {pcall(struct.pack, 'c2147483647', 'x')}",
    "local t = {} for i = 1, 100 do t[i] = 'a' .. i end return loadstring('local function f(' .. table.concat(t, ',') .. ', ...) return f(...) end return f()')()",
    "return coroutine.yield(1)",
    "coroutine.wrap(function() redis.call('set', 'in', 'coroutine') end)() return redis.call('get', 'in')",
];

#[test]
fn greedy_scripts_end_alike_in_new_and_used_engines() {
    let (mut one, mut two) = (Node::new(), Node::new());
    for n in 0..50 {
        two.eval(&format!("local t = {{}} for i = 1, 2000 do t[i] = 'w{n}' .. i end return #t"));
    }
    for body in GREEDY {
        let (first, second) = (one.eval(body), two.eval(body));
        assert_eq!(first, second, "{body}");
        assert!(first.len() < 1000, "{body}: {} bytes", first.len());
        assert_eq!(one.eval("return 1"), ":1", "after {body}");
        assert_eq!(two.eval("return 1"), ":1", "after {body}");
    }
}

#[test]
fn a_restarted_script_runs_its_commands_once() {
    let mut node = Node::new();
    let body = "local n = redis.call('get', 'n') or 0 redis.call('set', 'n', n + 1) \
                local t = {} for i = 1, 1000000 do t[i] = {i} end \
                redis.call('publish', 'c', #t) return redis.call('get', 'n')";
    assert_eq!(node.eval(body), "\"1\"");
    assert_eq!(node.run(&[b"get", b"n"]), "\"1\"");
    assert_eq!(node.effects.published.len(), 1);
}
