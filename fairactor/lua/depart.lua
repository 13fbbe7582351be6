-- Lets a tenant move to another shard of a namespace that grows.
-- Its policy says how far it is: `moving` is 'held' while none of its tasks is started any more, and 'gone' once it belongs
-- to the other shard.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant,
--       2 'ask': it goes if the shard knows nothing of it; 'hold': none of its tasks is started from now on; 'free':
--       they are again; 'go': it goes, if it is held and none of its tasks runs or is deferred;
--       'look': nothing changes; 'forget': nothing is known any more of one that has gone
--       3 and on: names of limits, as JSON text without quotation marks
-- Reply {'gone', 'held', or 'here', tasks that run, deferred tasks, its policy, packed, or '',
--       µs that it has to wait by its rate, [name of a limit of which it has an instance, settings of that, packed, or '',
--       µs until what was taken of that is paid for] ...}; when it asks, no more than the first
--
-- Bounded: its caller names 200 limits at once.
-- Safe to repeat: a tenant that is gone stays gone. It takes its tasks along later (export.lua).

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/replace_policy.lua
-- @include lib/plugins.lua

local name, wish = ARGV[1], ARGV[2]
local packed = call('HGET', POLICY, name)
local policy = packed and cmsgpack.unpack(packed) or {}
if policy.moving == 'gone' and wish == 'ask' then return { 'gone' } end
local is_known = packed or call('HEXISTS', COUNTS, name) == 1
  or tonumber(call('ZSCORE', RATES, name) or 0) > shard.now
if wish == 'ask' then
  if is_known then return { 'here' } end
  policy.moving = 'gone'
elseif policy.moving == 'gone' then
  if wish == 'forget' then policy = {} end
else
  if wish == 'hold' then policy.moving = 'held' elseif wish == 'free' then policy.moving = nil end
end

local t = replace_tenant(name, policy)
load_counts({ name })
local started = t[LIMITS] and t[LIMITS].started or 0
local deferred = counts[name][DEFERRED]

-- Whether plugins keep something on which tasks of the tenant depend. They say so by `stays`.
local function stays_for_plugins(name)
  local stays = false
  -- @hook departs
  return stays
end

if wish == 'go' and policy.moving == 'held' and started == 0 and deferred == 0 and not stays_for_plugins(name) then
  policy.moving = 'gone'
end
local function without_moving()
  local own = {}
  for setting, value in pairs(policy) do
    if setting ~= 'moving' then own[setting] = value end
  end
  return next(own) and cmsgpack.pack(own) or ''
end
local waits = math.max(0, tonumber(call('ZSCORE', RATES, name) or 0) - shard.now)
local reply = { policy.moving or 'here', started, deferred, without_moving(), integer(waits) }
for i = 3, #ARGV do
  local instance = ARGV[i] .. '\31' .. name
  local settings, due = call('HGET', LIMIT_SETTINGS, instance), tonumber(call('ZSCORE', LIMIT_DUES, instance) or 0)
  if settings or due > shard.now then
    local n = #reply
    reply[n + 1], reply[n + 2], reply[n + 3] = ARGV[i], settings or '', integer(math.max(0, due - shard.now))
  end
end

if wish == 'look' then return reply end
begin_writing()
write_policy(name, policy, t, replaced)
save_counts()
save_shard()
return reply
