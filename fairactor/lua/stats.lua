-- Returns counts, at a cost that does not depend on how much they count.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, or nothing for the whole shard
-- Reply of a tenant {counts, packed, or '', its policy, packed, or '', the defaults, likewise, how many are queued};
--       of the shard {counts, started tasks, tenants on the ring, tenants with counts,
--       tasks due now (of more than 100 tenants: at least so many), dead letters, tasks stolen, tenants held back by
--       their rate, {unassigned tenants with work}, ms by which the server's clock was set back,
--       [runtime, its description, ms of lease left] ...}
--
-- Reads only.

-- @include lib/intact.lua

local tenant = ARGV[1]
if tenant then
  local policies = call('HMGET', POLICY, tenant, '')
  local queued = call('ZCARD', QUEUE .. tenant) + call('ZCARD', SUSPECTS .. tenant)
  for _, lane in ipairs(shard.lanes and call('ZRANGE', LANES_OF .. tenant, 0, -1) or {}) do
    queued = queued + call('ZCARD', mailbox(tenant, lane))
  end
  return { call('HGET', COUNTS, tenant) or '', policies[1] or '', policies[2] or '', queued }
end

local FAR = 1e15 -- ms: nothing real is that far away
local now = shard.ms
local started, fleet = 0, {}
local leases = call('ZRANGE', LEASES, 0, -1, 'WITHSCORES')
for i = 1, #leases, 2 do
  started = started + call('HLEN', CLAIMS .. leases[i])
  fleet[#fleet + 1] = leases[i]
  fleet[#fleet + 1] = call('HGET', FLEET, leases[i]) or ''
  fleet[#fleet + 1] = math.max(-FAR, math.min(tonumber(leases[i + 1]) - now, FAR))
end
-- If every runtime is dedicated: those of the next tenants that are assigned to none.
local function unassigned()
  local found = {}
  for i = 1, #leases, 2 do
    if call('HEXISTS', HOMES, leases[i]) == 0 or call('SISMEMBER', STEAL .. leases[i], '') == 1 then return found end
  end
  local names = {}
  for kind in (#leases > 0 and shard.kinds or ''):gmatch('%d+') do
    act_for(kind)
    for _, member in ipairs(call('ZRANGE', shard.ring, 0, 99)) do
      local grouped = member:byte() == 255 and call('ZRANGE', shard.group .. member:sub(2), 0, 99)
      for _, name in ipairs(grouped or { member }) do names[#names + 1] = name end
    end
  end
  for _, name in ipairs(names) do
    local is_assigned = false
    for i = 1, #leases, 2 do is_assigned = is_assigned or call('SISMEMBER', ASSIGNED .. leases[i], name) == 1 end
    if not is_assigned then found[#found + 1] = name end
  end
  return found
end

-- Counts the due tasks: each one of the first tenants, and one for each of the others.
local function count_due()
  local MOST = 100
  local names = call('ZRANGEBYSCORE', SCHEDULED, '-inf', integer(now), 'LIMIT', 0, MOST)
  local number = #names == MOST and call('ZCOUNT', SCHEDULED, '-inf', integer(now)) - MOST or 0
  for _, name in ipairs(names) do number = number + call('ZCOUNT', DELAYED .. name, '-inf', integer(now)) end
  return number
end

-- Returns how many tenants and groups wait for the kind of runtimes for which the most wait.
local function count_waiting()
  local most = 0
  for kind in shard.kinds:gmatch('%d+') do
    most = math.max(most, call('ZCARD', kind == '0' and RING or KIND_RING .. kind))
  end
  return most
end

return {
  shard.total or '', started, count_waiting(), call('HLEN', COUNTS),
  count_due(), call('ZCOUNT', DEAD, integer(shard.now), '+inf'),
  tonumber(call('HGET', META, 'stolen') or 0) or 0, call('ZCARD', THROTTLED), unassigned(),
  math.floor(shard.behind / 1000), unpack(fleet),
}
