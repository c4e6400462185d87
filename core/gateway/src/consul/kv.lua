-- Keys, sessions and locks of Consul's API, in the keyspace of a node. One script, so that each request is one entry.
-- All names have one hash tag and lie in one partition.
local P, op = '{consul}:', ARGV[1]
-- What one transaction may read and keep, in bytes: far below what a script may hold.
local TXN_BYTES_MAX = 64 * 1024 * 1024

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- A transaction: what its keys were before it, those that it has changed in their order, and the one index of its changes.
local txn

local function bump()
  if txn and txn.index then return txn.index end
  local index = redis.call('INCR', P .. 'index')
  -- 1 is what is told of a store in which nothing was ever changed.
  if index == 1 then index = redis.call('INCR', P .. 'index') end
  if txn then txn.index = index end
  return index
end

-- What a transaction keeps, to be told or taken back. A script that the engine stops leaves what it wrote, so the end comes before that.
local function count(key, value)
  if txn then txn.bytes = txn.bytes + #key + (value and #value or 0) end
end

local function is_full()
  return #txn.keys > txn.most or txn.bytes > TXN_BYTES_MAX
end

-- Called before a key is changed.
local function note(key)
  if not txn or txn.was[key] ~= nil then return end
  local all = redis.call('HMGET', P .. 'k:' .. key, 'v', 'f', 'c', 'm', 'l', 's')
  count(key, all[1])
  txn.was[key] = all[3] and all
  txn.keys[#txn.keys + 1] = key
end

local function field(key, name)
  return redis.call('HGET', P .. 'k:' .. key, name)
end

-- How a key is told: key, value, flags, created, modified, locked how often, by whom.
local function told(key)
  local all = redis.call('HMGET', P .. 'k:' .. key, 'v', 'f', 'c', 'm', 'l', 's')
  if not all[3] then return nil end
  return { key, all[1], all[2], all[3], all[4], all[5] or '0', all[6] or '' }
end

-- The index of what there is not any more: the last removal.
local function removed()
  return redis.call('GET', P .. 'gone') or '0'
end

local function with_prefix(prefix)
  local first = prefix == '' and '-' or '[' .. prefix
  local last = prefix == '' and '+' or '[' .. prefix .. '\255'
  return redis.call('ZRANGEBYLEX', P .. 'keys', first, last)
end

local function forget(key)
  note(key)
  local holder = field(key, 's')
  if holder and holder ~= '' then redis.call('SREM', P .. 'locks:' .. holder, key) end
  redis.call('DEL', P .. 'k:' .. key)
  redis.call('ZREM', P .. 'keys', key)
  redis.call('SET', P .. 'gone', bump())
end

-- A session ends: its locks are given back, or their keys go with it, and nobody has them before the delay is over.
local function finish(id)
  local it = redis.call('HMGET', P .. 's:' .. id, 'behavior', 'delay')
  if not it[1] then return false end
  for _, key in ipairs(redis.call('SMEMBERS', P .. 'locks:' .. id)) do
    if it[1] == 'delete' then
      forget(key)
    else
      redis.call('HSET', P .. 'k:' .. key, 's', '', 'm', bump())
    end
    local delay = tonumber(it[2])
    if delay > 0 then redis.call('SET', P .. 'delay:' .. key, '1', 'PX', delay) end
  end
  redis.call('DEL', P .. 's:' .. id, P .. 'locks:' .. id)
  redis.call('ZREM', P .. 'due', id)
  redis.call('SREM', P .. 'sessions', id)
  bump()
  return true
end

local function sweep(time)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'due', '-inf', time, 'LIMIT', 0, 64)) do finish(id) end
end

local function session(id)
  local it = redis.call('HMGET', P .. 's:' .. id, 'name', 'node', 'behavior', 'ttl', 'delay', 'index')
  if not it[1] then return nil end
  return { id, it[1], it[2], it[3], it[4], it[5], it[6] }
end

-- Sets a key. False if it is not as it was expected; a text if it can never be done.
local function put(key, value, flags, cas, acquire, release)
  local old = told(key)
  if cas ~= '' then
    if cas == '0' and old then return false end
    if cas ~= '0' and not (old and old[5] == cas) then return false end
  end
  local holder, locked = old and old[7] or '', old and tonumber(old[6]) or 0
  if acquire ~= '' then
    if redis.call('EXISTS', P .. 's:' .. acquire) == 0 then return 'invalid session' end
    if holder ~= '' and holder ~= acquire then return false end
    if holder == '' and redis.call('EXISTS', P .. 'delay:' .. key) == 1 then return false, 'delay' end
  elseif release ~= '' and holder ~= release then
    return false
  end
  note(key)
  if acquire ~= '' then
    if holder == '' then locked = locked + 1 end
    holder = acquire
    redis.call('SADD', P .. 'locks:' .. acquire, key)
  elseif release ~= '' then
    holder = ''
    redis.call('SREM', P .. 'locks:' .. release, key)
  end
  local index = bump()
  redis.call('HSET', P .. 'k:' .. key, 'v', value, 'f', flags, 'c', old and old[4] or index, 'm', index, 'l', locked, 's', holder)
  redis.call('ZADD', P .. 'keys', 0, key)
  return true
end

-- As in Consul, what is not there is deleted whatever index is given.
local function delete(key, cas)
  local old = told(key)
  if not old then return true end
  if cas ~= '' and old[5] ~= cas then return false end
  forget(key)
  return true
end

-- The keys are what they were before the transaction.
local function take_back(index, gone)
  for _, key in ipairs(txn.keys) do
    local was, holder = txn.was[key], field(key, 's')
    if holder and holder ~= '' then redis.call('SREM', P .. 'locks:' .. holder, key) end
    redis.call('DEL', P .. 'k:' .. key)
    if was then
      redis.call('HSET', P .. 'k:' .. key, 'v', was[1], 'f', was[2], 'c', was[3], 'm', was[4], 'l', was[5] or '0', 's', was[6] or '')
      redis.call('ZADD', P .. 'keys', 0, key)
      if was[6] and was[6] ~= '' then redis.call('SADD', P .. 'locks:' .. was[6], key) end
    else
      redis.call('ZREM', P .. 'keys', key)
    end
  end
  if index then redis.call('SET', P .. 'index', index) else redis.call('DEL', P .. 'index') end
  if gone then redis.call('SET', P .. 'gone', gone) else redis.call('DEL', P .. 'gone') end
end

-- One operation of a transaction: the keys that it tells, and whether with their values; or nothing, why not, and what it is instead.
local function operate(verb, key, value, flags, index, holder)
  local done, why = true, nil
  local old = told(key)
  if verb == 'get' then
    if not old then return nil, 'absent', '' end
    count(key, old[2])
    return { old }
  elseif verb == 'get-or-empty' then
    count(key, old and old[2])
    return { old or { key, '', '0', '0', '0', '0', '' } }
  elseif verb == 'get-tree' then
    local all = {}
    for at, name in ipairs(with_prefix(key)) do
      all[at] = told(name)
      count(name, all[at][2])
      if is_full() then return nil, 'many', '' end
    end
    return all
  elseif verb == 'check-index' or verb == 'check-session' then
    if not old then return nil, 'absent', '' end
    local is = verb == 'check-index' and old[5] or old[7]
    if is ~= (verb == 'check-index' and index or holder) then return nil, 'other', is end
  elseif verb == 'check-not-exists' then
    if old then return nil, 'exists', '' end
    return {}
  elseif verb == 'set' then
    -- The lock stays with who has it.
    put(key, value, flags, '', '', '')
  elseif verb == 'cas' then
    done = put(key, value, flags, index, '', '')
  elseif verb == 'lock' then
    done, why = put(key, value, flags, '', holder, '')
    if done == 'invalid session' then return nil, 'session', '' end
    if why then return nil, why, '' end
  elseif verb == 'unlock' then
    done = put(key, value, flags, '', '', holder)
  elseif verb == 'delete' or verb == 'delete-cas' then
    if not delete(key, verb == 'delete' and '' or index) then return nil, 'stale', '' end
    return {}
  elseif verb == 'delete-tree' then
    for _, name in ipairs(with_prefix(key)) do
      forget(name)
      if is_full() then return nil, 'many', '' end
    end
    return {}
  end
  if not done then return nil, 'stale', '' end
  local now = told(key)
  now[2] = ''
  return { now }
end

-- A transaction, six arguments for each operation behind the first two: index, what is told, what did not hold.
local function transact(most)
  local index, gone = redis.call('GET', P .. 'index'), redis.call('GET', P .. 'gone')
  local told_keys, wrong = {}, {}
  txn = { was = {}, keys = {}, bytes = 0, most = most }
  for at = 3, #ARGV, 6 do
    local number = tostring((at - 3) / 6)
    local all, why, is = operate(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5])
    if not all then
      wrong[#wrong + 1] = { number, why, is }
    elseif is_full() then
      wrong[#wrong + 1] = { number, 'many', '' }
    else
      for _, it in ipairs(all) do told_keys[#told_keys + 1] = it end
    end
    if is_full() then break end
  end
  if #wrong > 0 then
    if #txn.keys > 0 then take_back(index, gone) end
    told_keys = {}
  end
  return { redis.call('GET', P .. 'index') or '0', told_keys, wrong }
end

if op == 'poll' then
  local due = redis.call('ZRANGEBYSCORE', P .. 'due', '-inf', now(), 'LIMIT', 0, 1)
  return { redis.call('GET', P .. 'index') or '0', #due }
elseif op == 'event.list' then
  local all, index = {}, tonumber(redis.call('GET', P .. 'events.gone') or '0')
  local flat = redis.call('LRANGE', P .. 'events', 0, -1)
  for at = 1, #flat, 4 do
    if ARGV[2] == '' or flat[at + 2] == ARGV[2] then
      all[#all + 1] = { flat[at], flat[at + 1], flat[at + 2], flat[at + 3] }
      index = math.max(index, tonumber(flat[at]))
    end
  end
  return { tostring(index), all }
elseif op == 'txn.read' then
  return transact(0)
elseif op == 'get' then
  local it = told(ARGV[2])
  if it then return { it[5], { it } } end
  return { removed(), {} }
elseif op == 'list' then
  local all, index = {}, tonumber(removed())
  for at, key in ipairs(with_prefix(ARGV[2])) do
    all[at] = told(key)
    index = math.max(index, tonumber(all[at][5]))
  end
  return { tostring(index), all }
elseif op == 'keys' then
  local all, index, last, prefix, mark = {}, tonumber(removed()), nil, ARGV[2], ARGV[3]
  for _, key in ipairs(with_prefix(prefix)) do
    index = math.max(index, tonumber(field(key, 'm')))
    local cut = mark ~= '' and string.find(key, mark, #prefix + 1, true)
    local name = cut and string.sub(key, 1, cut + #mark - 1) or key
    if name ~= last then all[#all + 1] = name end
    last = name
  end
  return { tostring(index), all }
elseif op == 'session.info' then
  local it = session(ARGV[2])
  return { redis.call('GET', P .. 'index') or '0', it and { it } or {} }
elseif op == 'session.list' then
  local ids, all = redis.call('SMEMBERS', P .. 'sessions'), {}
  table.sort(ids)
  for _, id in ipairs(ids) do
    local it = session(id)
    if ARGV[2] == '' or it[3] == ARGV[2] then all[#all + 1] = it end
  end
  return { redis.call('GET', P .. 'index') or '0', all }
end

-- What follows changes something; what has ended before it does not count any more.
local time = now()
sweep(time)

if op == 'txn' then
  return transact(tonumber(ARGV[2]))
elseif op == 'put' then
  local done = put(ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7])
  if done == 'invalid session' then return redis.error_reply('ERR invalid session') end
  return done and 1 or 0
elseif op == 'delete' then
  return delete(ARGV[2], ARGV[3]) and 1 or 0
elseif op == 'tree' then
  for _, key in ipairs(with_prefix(ARGV[2])) do forget(key) end
  return 1
elseif op == 'event.fire' then
  redis.call('RPUSH', P .. 'events', bump(), ARGV[2], ARGV[3], ARGV[4])
  local most = tonumber(ARGV[5]) * 4
  while redis.call('LLEN', P .. 'events') > most do
    -- The index of what is not told any more, so that none falls.
    redis.call('SET', P .. 'events.gone', redis.call('LINDEX', P .. 'events', 0))
    redis.call('LTRIM', P .. 'events', 4, -1)
  end
  return 1
elseif op == 'session.create' then
  local id, ttl = ARGV[2], tonumber(ARGV[6])
  redis.call('HSET', P .. 's:' .. id, 'name', ARGV[3], 'node', ARGV[4], 'behavior', ARGV[5], 'ttl', ttl, 'delay', ARGV[7], 'index', bump())
  redis.call('SADD', P .. 'sessions', id)
  -- As Consul does: clients such as Patroni halve what they mean.
  if ttl > 0 then redis.call('ZADD', P .. 'due', time + 2 * ttl, id) end
  return 1
elseif op == 'session.renew' then
  local it = session(ARGV[2])
  if not it then return {} end
  if tonumber(it[5]) > 0 then redis.call('ZADD', P .. 'due', time + 2 * tonumber(it[5]), ARGV[2]) end
  return { it }
elseif op == 'session.destroy' then
  finish(ARGV[2])
  return 1
elseif op == 'session.node' then
  for _, id in ipairs(redis.call('SMEMBERS', P .. 'sessions')) do
    if redis.call('HGET', P .. 's:' .. id, 'node') == ARGV[2] then finish(id) end
  end
  return 1
elseif op == 'sweep' then
  return 1
end
return redis.error_reply('ERR no such operation')
