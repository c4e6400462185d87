//! What scripts answer, and what they are refused, as Redis 7.0 does it.

use crate::harness::Node;

#[test]
fn scripts_answer_what_redis_answers() {
    #[rustfmt::skip] // columns
    let table = [
        ("return 1", ":1"),
        ("return 3.99", ":3"),
        ("return 'x'", "\"x\""),
        ("return nil", "nil"),
        ("return", "nil"),
        ("return true", ":1"),
        ("return false", "nil"),
        ("return {1,2,3.99,false,true,nil,5}", "*5 :1 :2 :3 nil :1"),
        ("return {1.5,'a',{2,{3}}}", "*3 :1 \"a\" *2 :2 *1 :3"),
        ("return {KEYS[1],ARGV[1],ARGV[2],#ARGV}", "*4 \"key\" \"a\" \"b\" :2"),
        ("return {ok='foo'}", "+foo"),
        ("return {err='foo bar'}", "-foo bar"),
        ("return {double=3.5}", ",3.5"),
        ("return {map={a=1}}", "%1 \"a\" :1"),
        ("return redis.error_reply('x y')", "-x y"),
        ("return redis.error_reply('-x y')", "-x y"),
        ("return redis.error_reply('x')", "-ERR x"),
        ("return redis.error_reply(1)", "-ERR wrong number or type of arguments"),
        ("return redis.status_reply('x y')", "+x y"),
        ("return redis.sha1hex('a')", "\"86f7e437faa5a7fce15d1ddcb9eaeaea377667b8\""),
        ("return tostring(math.random())..' '..math.random(10)..' '..math.random(5,9)", "\"0.39646477363839 9 6\""),
        ("math.randomseed(5) return tostring(math.random())..' '..math.random(10)..' '..math.random(5,9)", "\"0.52483957937213 3 8\""),
        ("return redis.call('set', KEYS[1], 3.14159265358979)", "+OK"),
        ("return redis.call('get', KEYS[1])", "\"3.14159265358979\""),
        ("return redis.call('get', 'none')", "nil"),
        ("return redis.call('del', KEYS[1])", ":1"),
        ("return redis.call('exists', KEYS[1])", ":0"),
        ("return redis.call('ping')", "+PONG"),
        ("return redis.call('echo', 12)", "\"12\""),
        ("return redis.replicate_commands()", ":1"),
        ("return redis.set_repl(redis.REPL_ALL)", "nil"),
        ("return redis.pcall('nosuch')", "-ERR Unknown Redis command called from script"),
        ("return select(2,pcall(function() error('x') end))", "\"user_script:1: x\""),
        ("return {pcall(error,{err='X y'})}", "*2 nil \"X y\""),
        ("local t={} t[1]=t return t", "-ERR reached lua stack limit"),
        ("return string.foo", "nil"),
        ("return {tostring({}), tostring(print == nil), tostring(redis.call)}", "-ERR user_script:1: Script attempted to access nonexistent global variable 'print'"),
        ("return {tostring({}), tostring(redis.call)}", "*2 \"table: 0x0\" \"function: 0x0\""),
        ("#!lua\nreturn 1", ":1"),
    ];
    answers(&table);
}

#[test]
fn libraries_answer_what_redis_answers() {
    #[rustfmt::skip] // columns
    let table = [
        ("return {string.find('hello world', 'o w')}", "*2 :5 :7"),
        ("return {string.find('a.b', '.', 1, true)}", "*2 :2 :2"),
        ("return {string.find('key=val', '(%w+)=(%w+)')}", "*4 :1 :7 \"key\" \"val\""),
        ("return {('x:12:y'):match('^(%a):(%d+):')}", "*2 \"x\" \"12\""),
        ("local t={} for k,v in string.gmatch('a=1, b=2', '(%w+)=(%w+)') do t[#t+1]=k..v end return t", "*2 \"a1\" \"b2\""),
        ("return {string.gsub('hello world', 'o', '0')}", "*2 \"hell0 w0rld\" :2"),
        ("return {string.gsub('abc', '%w', '%0%0')}", "*2 \"aabbcc\" :3"),
        ("return {string.gsub('abc', '', '-')}", "*2 \"-a-b-c-\" :4"),
        ("return {string.gsub('abc', '%w', {a='1', b=true and 'x'})}", "*2 \"1xc\" :3"),
        ("return {string.gsub('abc', '%w', function(c) return c:upper() end, 2)}", "*2 \"ABc\" :2"),
        ("return string.match('  trim  ', '^%s*(.-)%s*$')", "\"trim\""),
        ("return string.match('f(a(b)c)d', '%b()')", "\"(a(b)c)\""),
        ("return string.gsub('THE (quick) fox', '%f[%a]%a+', 'W')", "\"W (W) W\""),
        ("return string.match('aXb', '[^%l]')", "\"X\""),
        ("return string.find('a', '[')", "-ERR user_script:1: malformed pattern (missing ']')"),
        ("return cjson.encode({1,2,{a=1}})", "\"[1,2,{\\\"a\\\":1}]\""),
        ("return cjson.encode({})", "\"{}\""),
        ("return cjson.encode({cjson.null, 0.1, 1e20, true, 'a/b'})", "\"[null,0.1,1e+20,true,\\\"a\\\\/b\\\"]\""),
        ("return cjson.encode({[20]=1})", "-ERR user_script:1: Cannot serialise table: excessively sparse array"),
        ("return cjson.encode({[3]=1})", "\"[null,null,1]\""),
        ("return cjson.decode('[1,')", "-ERR user_script:1: Expected value but found T_END at character 4"),
        ("return cjson.decode('[1, {\"a\": [true, null]}]')[2].a[2] == cjson.null", ":1"),
        ("return cjson.decode('\"\\\\u00e9\"')", "\"\\xc3\\xa9\""),
        ("return {pcall(cjson.decode, string.rep('[', 1e5))}", "*2 nil \"user_script:1: Found too many nested data structures (1001) at character 1001\""),
        ("local t={} for i=1,1e5 do t={t} end return #{pcall(cjson.encode, t)}", ":2"),
        ("return {bit.band(0xff,0x0f), bit.bor(1,2), bit.bxor(3,1), bit.lshift(1,4), bit.tobit(0xffffffff)}", "*5 :15 :3 :2 :16 :-1"),
        ("return bit.tohex(255)..bit.tohex(-1,4)", "\"000000ffffff\""),
        ("cjson.x = 1", "-ERR user_script:1: Attempt to modify a readonly table"),
        ("return cmsgpack.pack({1,-1,300,'a',true,{b=1.5}})", "\"\\x96\\x01\\xff\\xcd\\x01,\\xa1a\\xc3\\x81\\xa1b\\xca?\\xc0\\x00\\x00\""),
        ("return cmsgpack.unpack(cmsgpack.pack({1,-300,70000,'a',{2}}))", "*5 :1 :-300 :70000 \"a\" *1 :2"),
        ("return {cmsgpack.unpack_one(cmsgpack.pack(1,2))}", "*2 :1 :1"),
        ("return {cmsgpack.unpack_limit(cmsgpack.pack(1,2,3), 2, 1)}", "*3 :-1 :2 :3"),
        ("return cmsgpack.unpack(string.char(0xdd,255,255,255,255))", "-ERR user_script:1: Missing bytes in input."),
        ("return {pcall(cmsgpack.unpack, string.rep(string.char(0x91), 1e5))}", "*2 nil \"user_script:1: too many nested values\""),
        ("return struct.pack('>hBs', 258, 3, 'ab')", "\"\\x01\\x02\\x03ab\\x00\""),
        ("return {struct.unpack('>hBs', struct.pack('>hBs', -2, 3, 'ab'))}", "*4 :-2 :3 \"ab\" :7"),
        ("return {struct.unpack('<I2c0', struct.pack('<I2', 3) .. 'abcd')}", "*2 \"abc\" :6"),
        ("return {struct.size('!8Bd'), struct.size('!8Bi'), struct.size('Bd')}", "*3 :16 :8 :9"),
        ("return struct.unpack('d', 'x')", "-ERR user_script:1: data string too short"),
        ("return struct.pack('i99', 1)", "-ERR user_script:1: integral size 99 is larger than limit of 32"),
        ("return string.rep('ab', 3)", "\"ababab\""),
    ];
    answers(&table);
}

fn answers(table: &[(&str, &str)]) {
    let mut node = Node::new();
    for &(body, expected) in table {
        let answer = node.eval(body);
        let answer = answer.split(" script: ").next().unwrap_or_default();
        assert_eq!(answer, expected, "{body}");
    }
}
