-- Builds what scripts see from Lua's libraries and the native functions. Runs once in each state.
local native, metatables = ...

local rawnext, rawtype, rawerror, rawpcall, rawxpcall = next, type, error, pcall, xpcall
local rawset_, rawget_, setmeta, getmeta, tostring_ = rawset, rawget, setmetatable, getmetatable, tostring
local select_, loadstring_, insert_, concat_ = select, loadstring, table.insert, table.concat
local sort_, foreach_, resume_, create_, wrap_ = table.sort, table.foreach, coroutine.resume, coroutine.create, coroutine.wrap
local sub, byte, floor, unpack_ = string.sub, string.byte, math.floor, unpack
local where, fatal, log, sha1hex = native.where, native.fatal, native.log, native.sha1hex
local rand, seed = native.rand, native.seed
local dispatch, set_resp

-- Errors -------------------------------------------------------------------------------------------

-- The line of the script that runs. A call in tail position leaves no frame to ask; `only_line` is what
-- is known then: 1 for a script of one line.
local only_line
local function line_now() return where() or only_line end

local function raise(text)
  local line = line_now()
  if line then text = 'user_script:' .. line .. ': ' .. text end
  rawerror(text, 0)
end

local function settle(ok, ...)
  if ok then return ... end
  raise((...))
end

-- A native function as a script calls it.
local function guard(f)
  return function(...) return settle(f(...)) end
end

-- Passes on what ends the script, whatever the script would have caught.
local function outlived(ok, ...)
  if not ok and fatal((...)) then rawerror((...), 0) end
  return ok, ...
end

local function handler(e)
  if fatal(e) then return e end
  if rawtype(e) ~= 'table' then e = { err = 'ERR ' .. tostring(e) } end
  local line = line_now()
  if line and rawget_(e, 'line') == nil then
    rawset_(e, 'source', '@user_script')
    rawset_(e, 'line', line)
  end
  return e
end

-- Read-only tables: an empty table before the real one. -----------------------------------------

local protected = {}

local function readonly()
  rawerror('Attempt to modify a readonly table', 2)
end

local function protect(real)
  local shown = setmeta({}, { __index = real, __newindex = readonly, __metatable = false })
  protected[shown] = real
  return shown
end

-- Base -----------------------------------------------------------------------------------------------

local addressed = { table = true, ['function'] = true, userdata = true, thread = true }

local function deterministic(t)
  for k in rawnext, t do
    if addressed[rawtype(k)] and k ~= native.null then
      rawerror('a table with tables or functions as keys has no order to iterate in', 3)
    end
  end
end

local base = {
  _VERSION = _VERSION, assert = assert, error = rawerror, ipairs = ipairs, rawequal = rawequal,
  rawget = rawget, select = select, tonumber = tonumber, type = type,
}

function base.pairs(t)
  local real = protected[t]
  if real then t = real end
  if rawtype(t) ~= 'table' then
    rawerror("bad argument #1 to 'pairs' (table expected, got " .. (t == nil and 'nil' or rawtype(t)) .. ')', 2)
  end
  deterministic(t)
  return rawnext, t, nil
end

function base.next(t, k)
  local v
  k, v = rawnext(protected[t] or t, k)
  if addressed[rawtype(k)] and k ~= native.null then deterministic(t) end
  return k, v
end

-- Lua counts the results of unpack in C's int, and what overflows there is undefined: a compiler may drop
-- the check behind it, and then the stack is overrun. So only ranges that fit reach it. A C function has 8000
-- places, three of which are the arguments.
local RESULTS_MAX, INT_MIN, INT_MAX = 7997, -2147483648, 2147483647
function base.unpack(t, i, j)
  local function number(v, at)
    local n = tonumber(v)
    if n then return n end
    rawerror("bad argument #" .. at .. " to 'unpack' (number expected, got " .. rawtype(v) .. ')', 3)
  end
  if rawtype(t) ~= 'table' then
    rawerror("bad argument #1 to 'unpack' (table expected, got " .. (t == nil and 'no value' or rawtype(t)) .. ')', 2)
  end
  local first, last = 1, #t
  if i ~= nil then first = number(i, 2) end
  if j ~= nil then last = number(j, 3) end
  -- NaN fits nowhere.
  local fits = first >= INT_MIN and first <= INT_MAX and last >= INT_MIN and last <= INT_MAX
  if not fits or last - first >= RESULTS_MAX then rawerror('too many results to unpack', 2) end
  return unpack_(t, first, last)
end

-- Results travel in a table: the C library's pcall has no room for one more than 20 of them.
local function packed(...) return { n = select_('#', ...), ... } end
local function collect(f, ...) return packed(f(...)) end

function base.pcall(...)
  local ok, e = outlived(rawpcall(collect, ...))
  if ok then return true, unpack_(e, 1, e.n) end
  if rawtype(e) == 'table' then
    local text = rawget_(e, 'err')
    if rawtype(text) == 'string' then e = text end
  end
  return false, e
end

function base.xpcall(f, h)
  local ok, e = outlived(rawxpcall(function() return collect(f) end, function(e)
    if fatal(e) then return e end
    return h(e)
  end))
  if ok then return true, unpack_(e, 1, e.n) end
  return false, e
end

function base.rawset(t, k, v)
  if protected[t] then rawerror('Attempt to modify a readonly table', 0) end
  return rawset_(t, k, v)
end

function base.setmetatable(t, m)
  if protected[t] then rawerror('Attempt to modify a readonly table', 0) end
  if rawtype(m) == 'table' then metatables[m] = true end
  return setmeta(t, m)
end

base.getmetatable = getmetatable

-- Addresses differ between replicas, so they are not shown.
function base.tostring(...)
  local v = ...
  local kind = rawtype(v)
  if v == native.null and kind == 'userdata' then return 'userdata: (nil)' end
  if addressed[kind] then
    local m = getmeta(v)
    if rawtype(m) ~= 'table' or rawget_(m, '__tostring') == nil then return kind .. ': 0x0' end
  end
  return tostring_(...)
end
tostring = base.tostring

function base.loadstring(text, name)
  if rawtype(text) == 'string' and byte(text) == 27 then return nil, 'bytecode is not allowed' end
  return loadstring_(text, name)
end

function base.load(f, name)
  local parts = {}
  while true do
    local part = f()
    if part == nil or part == '' then break end
    if rawtype(part) ~= 'string' then return nil, 'reader function must return a string' end
    parts[#parts + 1] = part
  end
  return base.loadstring(concat_(parts), name or '=(load)')
end

-- Collections are invisible: their moments differ between replicas.
function base.collectgarbage(what)
  if what == 'step' then return true end
  return 0
end
function base.gcinfo() return 0, 0 end

-- Libraries ------------------------------------------------------------------------------------------

local coroutines = { running = coroutine.running, status = coroutine.status, yield = coroutine.yield }
function coroutines.create(f)
  native.charge(2000)
  return create_(f)
end
function coroutines.wrap(f)
  native.charge(2000)
  return wrap_(f)
end
function coroutines.resume(...) return outlived(resume_(...)) end

local tables = table
tables.sort = function(t, less)
  -- Comparisons count as instructions only if Lua code does them.
  return sort_(t, less or function(a, b) return a < b end)
end
tables.foreach = function(t, f)
  for k, v in base.pairs(t) do
    local r = f(k, v)
    if r ~= nil then return r end
  end
end
tables.insert = function(t, ...)
  if protected[t] then rawerror('Attempt to modify a readonly table', 2) end
  local at = ...
  if select_('#', ...) == 2 and rawtype(at) == 'number' and at < 1 then
    rawerror("bad argument #2 to 'insert' (position out of bounds)", 2)
  end
  return insert_(t, ...)
end

local maths = math
function maths.random(...)
  local r, n = rand(), select_('#', ...)
  if n == 0 then return r end
  local low, high = ...
  if n == 1 then low, high = 1, low elseif n ~= 2 then rawerror('wrong number of arguments', 2) end
  low, high = tonumber(low), tonumber(high)
  if not low or not high then rawerror("bad argument #1 to 'random' (number expected)", 2) end
  if low > high then rawerror("bad argument #" .. n .. " to 'random' (interval is empty)", 2) end
  return floor(r * (high - low + 1)) + low
end
function maths.randomseed(n)
  n = tonumber(n)
  if not n then rawerror("bad argument #1 to 'randomseed' (number expected)", 2) end
  seed(n)
end

local strings = string
strings.dump = nil
for _, name in ipairs(native.string_names) do strings[name] = guard(native[name]) end
local step, replace = native.step, native.replace

function strings.gmatch(s, p)
  local at = 1
  local function move(ok, first, last, ...)
    if not ok then raise(first) end
    if not first then return nil end
    at = last >= first and last + 1 or first + 1
    return ...
  end
  return function() return move(step(s, p, at, false)) end
end
strings.gfind = strings.gmatch

function strings.gsub(s, p, with, most)
  local kind = rawtype(with)
  if kind == 'string' or kind == 'number' then return settle(replace(s, p, with, most)) end
  if kind ~= 'function' and kind ~= 'table' then
    rawerror("bad argument #3 to 'gsub' (string/function/table expected)", 2)
  end
  if rawtype(s) ~= 'string' and rawtype(s) ~= 'number' then
    rawerror("bad argument #1 to 'gsub' (string expected, got " .. rawtype(s) .. ')', 2)
  end
  s = s .. ''
  local parts, at, count = {}, 1, 0
  local anchored = sub(p, 1, 1) == '^'
  most = tonumber(most) or #s + 1
  local function one(ok, first, last, ...)
    if not ok then raise(first) end
    if not first then return false end
    count = count + 1
    local new
    if kind == 'function' then new = with(...) else new = with[(...)] end
    local newkind = rawtype(new)
    if not new then
      new = sub(s, first, last)
    elseif newkind ~= 'string' and newkind ~= 'number' then
      raise('invalid replacement value (a ' .. newkind .. ')')
    end
    parts[#parts + 1] = sub(s, at, first - 1)
    parts[#parts + 1] = new
    if last >= first then
      at = last + 1
    else
      parts[#parts + 1] = sub(s, first, first)
      at = first + 1
    end
    return not anchored
  end
  while count < most and at <= #s + 1 do
    if not one(step(s, p, at, true)) then break end
  end
  parts[#parts + 1] = sub(s, at)
  return concat_(parts), count
end

-- redis ------------------------------------------------------------------------------------------

local redis = {
  LOG_DEBUG = 0, LOG_VERBOSE = 1, LOG_NOTICE = 2, LOG_WARNING = 3,
  REPL_NONE = 0, REPL_AOF = 1, REPL_SLAVE = 2, REPL_REPLICA = 2, REPL_ALL = 3,
  REDIS_VERSION = '7.0.15', REDIS_VERSION_NUM = 458767,
}

local function refuse(text)
  rawerror({ err = text }, 0)
end

function redis.call(...)
  local failed, r = dispatch(...)
  if failed then rawerror(r, 0) end
  return r
end

function redis.pcall(...)
  local _, r = dispatch(...)
  return r
end

function redis.error_reply(...)
  local text = ...
  if select_('#', ...) ~= 1 or rawtype(text) ~= 'string' then
    return { err = 'ERR wrong number or type of arguments' }
  end
  if sub(text, 1, 1) == '-' then text = sub(text, 2) end
  if not string.find(text, ' ', 1, true) then text = 'ERR ' .. text end
  return { err = text }
end

function redis.status_reply(...)
  local text = ...
  if select_('#', ...) ~= 1 or rawtype(text) ~= 'string' then
    return { err = 'ERR wrong number or type of arguments' }
  end
  return { ok = text }
end

function redis.sha1hex(...)
  if select_('#', ...) ~= 1 then refuse('ERR wrong number of arguments') end
  return settle(sha1hex(...))
end

function redis.log(...)
  local n, level = select_('#', ...), (...)
  if n < 2 then refuse('ERR redis.log() requires two arguments or more.') end
  if rawtype(level) ~= 'number' then refuse('ERR First argument must be a number (log level).') end
  if level < 0 or level > 3 then refuse('ERR Invalid debug level.') end
  local parts = {}
  for i = 2, n do
    local part = select_(i, ...)
    local kind = rawtype(part)
    if kind == 'string' or kind == 'number' then parts[#parts + 1] = part end
  end
  log(floor(level), concat_(parts, ' '))
end

function redis.setresp(...)
  if select_('#', ...) ~= 1 then refuse('ERR redis.setresp() requires one argument.') end
  local version = tonumber((...))
  if version ~= 2 and version ~= 3 then refuse('ERR RESP version must be 2 or 3.') end
  set_resp(version)
end

function redis.replicate_commands() return true end

function redis.set_repl(...)
  if select_('#', ...) ~= 1 then refuse('ERR redis.set_repl() requires two arguments.') end
  local flags = tonumber((...))
  if not flags or flags < 0 or flags > 3 or flags ~= floor(flags) then
    refuse('ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.')
  end
end

-- The globals ----------------------------------------------------------------------------------------

for name, library in rawnext, native.libraries do
  local shown = {}
  for key, f in rawnext, library do shown[key] = rawtype(f) == 'function' and guard(f) or f end
  base[name] = protect(shown)
end
base.redis = protect(redis)
base.table = protect(tables)
base.string = protect(strings)
base.math = protect(maths)
base.coroutine = protect(coroutines)
base.os = protect({ clock = native.clock })
setmeta(base, {
  __index = function(_, name)
    rawerror("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
  end,
})
local globals = protect(base)
rawset_(base, '_G', globals)
getmeta('').__metatable = false

local function run(chunk, dispatcher, resp_setter, keys, argv, line)
  only_line = line
  dispatch, set_resp = dispatcher, resp_setter
  native.reseed()
  rawset_(base, 'KEYS', keys)
  rawset_(base, 'ARGV', argv)
  return rawxpcall(chunk, handler)
end

local function leave()
  dispatch, set_resp = nil, nil
  rawset_(base, 'KEYS', nil)
  rawset_(base, 'ARGV', nil)
  for m in rawnext, metatables do metatables[m] = nil end
end

return run, leave, globals
