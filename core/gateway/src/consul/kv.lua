-- Keys, sessions and locks of Consul's API, in the keyspace of a node. One script, so that each request is one entry.
-- All names have one hash tag and lie in one partition.
local P, op = '{consul}:', ARGV[1]

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function bump()
  local index = redis.call('INCR', P .. 'index')
  -- 1 is what is told of a store in which nothing was ever changed.
  if index == 1 then index = redis.call('INCR', P .. 'index') end
  return index
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

if op == 'poll' then
  local due = redis.call('ZRANGEBYSCORE', P .. 'due', '-inf', now(), 'LIMIT', 0, 1)
  return { redis.call('GET', P .. 'index') or '0', #due }
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

if op == 'put' then
  local key, value, flags, cas, acquire, release = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
  local old = told(key)
  if cas ~= '' then
    if cas == '0' and old then return 0 end
    if cas ~= '0' and not (old and old[5] == cas) then return 0 end
  end
  local holder, locked = old and old[7] or '', old and tonumber(old[6]) or 0
  if acquire ~= '' then
    if redis.call('EXISTS', P .. 's:' .. acquire) == 0 then return redis.error_reply('ERR invalid session') end
    if holder ~= '' and holder ~= acquire then return 0 end
    if holder == '' and redis.call('EXISTS', P .. 'delay:' .. key) == 1 then return 0 end
    if holder == '' then locked = locked + 1 end
    holder = acquire
    redis.call('SADD', P .. 'locks:' .. acquire, key)
  elseif release ~= '' then
    if holder ~= release then return 0 end
    holder = ''
    redis.call('SREM', P .. 'locks:' .. release, key)
  end
  local index = bump()
  redis.call('HSET', P .. 'k:' .. key, 'v', value, 'f', flags, 'c', old and old[4] or index, 'm', index, 'l', locked, 's', holder)
  redis.call('ZADD', P .. 'keys', 0, key)
  return 1
elseif op == 'delete' then
  local old = told(ARGV[2])
  -- As in Consul, what is not there is deleted whatever index is given.
  if not old then return 1 end
  if ARGV[3] ~= '' and old[5] ~= ARGV[3] then return 0 end
  forget(ARGV[2])
  return 1
elseif op == 'tree' then
  for _, key in ipairs(with_prefix(ARGV[2])) do forget(key) end
  return 1
elseif op == 'session.create' then
  local id, ttl = ARGV[2], tonumber(ARGV[6])
  redis.call('HSET', P .. 's:' .. id, 'name', ARGV[3], 'node', ARGV[4], 'behavior', ARGV[5], 'ttl', ttl, 'delay', ARGV[7], 'index', bump())
  redis.call('SADD', P .. 'sessions', id)
  -- Consul lets one live for up to twice its time; this one is exact.
  if ttl > 0 then redis.call('ZADD', P .. 'due', time + ttl, id) end
  return 1
elseif op == 'session.renew' then
  local it = session(ARGV[2])
  if not it then return {} end
  if tonumber(it[5]) > 0 then redis.call('ZADD', P .. 'due', time + tonumber(it[5]), ARGV[2]) end
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
