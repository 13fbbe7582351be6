-- Gives a tenant another policy, for every runtime at once.

-- @include lib/counts.lua
-- @include lib/ring.lua

local replaced -- the tenant with the policy before

-- Replaces a tenant by one with a new policy. Returns it. Only reads.
local function replace_tenant(name, policy)
  load_tenants({ name })
  load_tags({ name })
  replaced = tenants[name]
  has_policies = true
  local t = new_tenant(name, policy)
  if t[OUTER] ~= replaced[OUTER] and replaced[STORED] then replaced[OUTER].removals[1] = name end
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

-- Writes the policy of a tenant or a group, or the defaults. `entry` is that of the ring which it concerns, if any, and
-- `before` what that was.
local function write_policy(name, policy, entry, before)
  if next(policy) then
    call('HSET', POLICY, name, cmsgpack.pack(policy))
  else
    call('HDEL', POLICY, name)
  end
  local is_tenant = entry and not entry[INNER]
  if is_tenant and not entry[LIMITS] then
    call('ZREM', THROTTLED, name)
    call('ZREM', RATES, name)
  end
  if call('EXISTS', POLICY) == 0 then call('DEL', RATES) end
  if lanes and entry then lanes.save_policy(entry, before) end
end
