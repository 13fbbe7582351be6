-- Changes the policy of a tenant, for every runtime at once.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, then pairs: name of a setting ('weight', 'concurrency'), its number, or '' for the default
-- Reply the policy as it is now, JSON
--
-- Safe to repeat.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua

local name = ARGV[1]
local packed = call('HGET', POLICY, name)
local policy = packed and cmsgpack.unpack(packed) or {}
for i = 2, #ARGV, 2 do policy[ARGV[i]] = tonumber(ARGV[i + 1]) end
local new = next(policy) and cmsgpack.pack(policy)

load_counts({ name })
meet({ name })
local t, queued = tenants[name], call('ZCARD', QUEUE .. name)
set_policy(t, new)
t[STARTED] = live(counts[name]) - queued
if queued > 0 and has_room(t) then
  arrive({ name })
  t[TAG] = math.min(t[TAG], shard.virtual + 1 / t[WEIGHT]) -- a greater weight counts at once
else
  t[LEAVES] = true
end

begin_writing()
if new then
  call('HSET', POLICY, name, new)
else
  call('HDEL', POLICY, name)
end
save_counts()
save_shard()
return next(policy) and cjson.encode(policy) or '{}'
