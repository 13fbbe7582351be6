-- Changes the policy of a tenant, of a group, or the defaults, for every runtime at once.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant; '' for the defaults; the byte 255 and a group's name, 2 settings, packed,
--       3 and on: names of settings that return to the default
-- Reply the new policy, packed
--
-- Safe to repeat: it sets the same values. After a change of the defaults, call review.lua.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua

local name = ARGV[1]
local policy = call('HGET', POLICY, name)
policy = policy and cmsgpack.unpack(policy) or {}
for setting, value in pairs(cmsgpack.unpack(ARGV[2])) do policy[setting] = value end
for i = 3, #ARGV do policy[ARGV[i]] = nil end

local before -- the entry with the policy before

-- Replaces the tenant by one with the new policy.
local function replace_tenant()
  load_tenants({ name })
  load_tags({ name })
  before = tenants[name]
  has_policies = true
  local t = new_tenant(name, policy)
  if t[OUTER] ~= before[OUTER] and before[STORED] then before[OUTER].removals[1] = name end
  if t[LIMITS] then
    load_usage({ name }, { t[LIMITS] })
    update_ring({})
  elseif lanes and lanes.waits(name) or not lanes and call('EXISTS', QUEUE .. name) == 1 then
    update_ring({ name })
  end
  if t[STORED] and not t[LEAVES] then -- a greater weight counts at once
    t[TAG] = math.min(t[TAG], time_for(t, name) + average_cost(name) / t[WEIGHT])
  end
  return t
end

-- A greater weight of a group counts at once.
local function update_weight(group)
  before = group
  group[WEIGHT] = policy.weight or 1
  if group[TAG] then group[TAG] = math.min(group[TAG], root.virtual + average_cost(group[NAME]) / group[WEIGHT]) end
  return group
end

local is_tenant = name ~= '' and name:byte() ~= GROUP_BYTE
local t = is_tenant and replace_tenant()
local group = name:byte() == GROUP_BYTE and update_weight(group_of(name:sub(2)))

begin_writing()
if next(policy) then
  call('HSET', POLICY, name, cmsgpack.pack(policy))
else
  call('HDEL', POLICY, name)
end
if t and not t[LIMITS] then
  call('ZREM', THROTTLED, name)
  call('ZREM', RATES, name)
end
if call('EXISTS', POLICY) == 0 then call('DEL', RATES) end
if lanes and (t or group) then lanes.save_policy(t or group, before) end
save_counts()
save_shard()
return cmsgpack.pack(policy)
