-- Changes the policy of a tenant, for every runtime at once.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, then pairs: name of a setting ('weight', 'concurrency'), its number, or '' for the default
-- Reply the policy as it is now, JSON
--
-- Safe to repeat.

-- @include lib/base.lua
-- @include lib/tenants.lua

local name = ARGV[1]
local packed = call('HGET', POLICY, name)
local policy = packed and cmsgpack.unpack(packed) or {}
load_tenants({ name })
for i = 2, #ARGV, 2 do policy[ARGV[i]] = tonumber(ARGV[i + 1]) end
local new = next(policy) and cmsgpack.pack(policy)
set_policy(tenants[name], new)
tag_arrivals()
tag_departures()

if new then
  call('HSET', POLICY, name, new)
else
  call('HDEL', POLICY, name)
end
save_tenants()
return next(policy) and cjson.encode(policy) or '{}'
