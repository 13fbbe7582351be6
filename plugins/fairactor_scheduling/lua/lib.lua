-- Shared by the scripts: a schedule's key, tenant, due time and last runs.

-- @include lib/base.lua

local MARGIN = 3000 -- ms after which others take over from a leader that died
local LINES = 10 -- the last runs that are kept

local function key_of(schedule) return OWN .. 'schedule:' .. schedule end

-- Returns the tenant of a schedule, and where in its name that ends; nil if somebody has damaged the name.
local function owner_of(schedule)
  local length, from = schedule:match('^(%d+):()')
  if not length then return nil end
  return schedule:sub(from, from + length - 1), from + length - 1
end

-- Returns how far a tenant is that moves between shards: 'held' or 'gone' where it was, 'arriving' where it will be; or nil.
local function moving(tenant)
  local policy = tenant and call('HGET', POLICY, tenant)
  return policy and cmsgpack.unpack(policy).moving
end

-- Whether a tenant belongs to another shard. The caller, which knows the layout, says so.
local function has_left(tenant)
  local how = moving(tenant)
  return how == 'gone' or not how and shard.epoch % 2 == 0
end

-- Sets when a schedule is due, and wakes a leader that would sleep longer.
local function put_due(schedule, at)
  call('ZADD', OWN .. 'due', integer(at), schedule)
  if call('ZRANGE', OWN .. 'due', 0, 0)[1] == schedule then
    local longest = math.max(at - shard.wall_ms, 0) + MARGIN
    if call('PTTL', OWN .. 'leader') > longest then call('PEXPIRE', OWN .. 'leader', integer(longest)) end
    call('PUBLISH', EVENTS, 'p' .. SELF)
  end
end

-- Deletes a schedule. Returns how many there were.
local function delete(schedule)
  local key = key_of(schedule)
  local previous, behind = unpack(call('HMGET', key, 'previous', 'behind'))
  if behind or previous then call('HDEL', OWN .. 'behind', behind or previous) end
  local found = call('DEL', key)
  call('HDEL', OWN .. 'declared', schedule)
  call('ZREM', OWN .. 'due', schedule)
  call('ZREM', OWN .. 'all', schedule)
  return found
end

-- Adds a line about a run in front, and keeps the last ones.
local function add_line(lines, planned, outcome, task)
  lines = integer(planned) .. ' ' .. integer(shard.wall_ms) .. ' ' .. outcome .. ' ' .. (task or '') .. '\n' .. (lines or '')
  local _, number = lines:gsub('\n', '')
  while number > LINES do
    lines = lines:match('^(.*\n)[^\n]*\n$')
    number = number - 1
  end
  return lines
end
