-- Changes the policy of a tenant, of a group, or the defaults, for every runtime at once.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant; '' for the defaults; the byte 255 and a group's name, 2 settings, packed,
--       3 and on: names of settings that return to the default
-- Reply the new policy, packed; or the error GONE: the tenant has moved to another shard
--
-- Safe to repeat: it sets the same values. After a change of the defaults, call review.lua.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/replace_policy.lua

local name = ARGV[1]
local policy = call('HGET', POLICY, name)
policy = policy and cmsgpack.unpack(policy) or {}
if policy.moving == 'gone' then return redis.error_reply('GONE the tenant has moved to another shard') end
for setting, value in pairs(cmsgpack.unpack(ARGV[2])) do policy[setting] = value end
for i = 3, #ARGV do policy[ARGV[i]] = nil end

-- A greater weight of a group counts at once.
local function update_weight(group)
  group[WEIGHT] = policy.weight or 1
  if group[TAG] then group[TAG] = math.min(group[TAG], root.virtual + average_cost(group[NAME]) / group[WEIGHT]) end
  return group
end

local is_tenant = name ~= '' and name:byte() ~= GROUP_BYTE
local entry
if is_tenant then entry = replace_tenant(name, policy) end
if name:byte() == GROUP_BYTE then
  entry = update_weight(group_of(name:sub(2)))
  replaced = entry
end

begin_writing()
write_policy(name, policy, entry, replaced)
save_counts()
save_shard()
return cmsgpack.pack(policy)
