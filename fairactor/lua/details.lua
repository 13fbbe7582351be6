-- Returns what is known about a task, and why it does not start.
--
-- KEYS  1 META of the shard
-- ARGV  1 id, 2 its tenant, or '' for any
-- Reply {} if the tenant has no such task, else {what inspect.lua returns, 6 entries;
--       ms since it was claimed or '', what holds it back or '', 'paused', 'moving', 'concurrency' or 'rate' if that keeps
--       its tenant from starting any task, or '', {limits that do not let it start}, the lane that no runtime serves or '',
--       how many runtimes run tasks}
--
-- Reads only.

-- @include lib/intact.lua
-- @include lib/owner.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/plugins.lua
-- @include lib/locate.lua

local id, tenant = ARGV[1], ARGV[2]
local record = call('GET', TASK .. id)
if not readable(record) or not is_owned_by(tenant, record) then return {} end
local states, runtimes, lanes_of = locate({ id }, { record })
local name, lane = tenant_of(record), lanes_of[1]

-- Returns why the tenant starts no task, or ''.
local function why_none_starts()
  load_tenants({ name })
  local own = tenants[name][LIMITS]
  if not own then return '' end
  if own.paused then return own.paused == true and 'paused' or 'moving' end
  if own.started >= own.concurrency then return 'concurrency' end
  return own.due - own.tolerance > shard.now and 'rate' or ''
end

-- Returns the limits that do not let the task start.
local function closed_limits()
  local set, closed = limits and limits.set_of(lane), {}
  if not set then return closed end
  local costs = limits.costs_in(lanes.route_in(record))
  for _, limit in ipairs(limits.names_in(set)) do
    limits.load({ limit }, { { name } })
    if limits.opens(limit, costs) ~= true or limits.opens_for(limit, costs, name) ~= true then
      closed[#closed + 1] = limit
    end
  end
  return closed
end

local due = tonumber(call('ZSCORE', DELAYED .. name, id))
local reply = { states[1], record, due and integer(due - math.floor(shard.behind / 1000)) or '', runtimes[1] or '',
  call('PTTL', TASK .. id), call('HGET', PROGRESS, id) or '', '', '', '', {}, '',
  call('ZCOUNT', LEASES, '(' .. NO_LEASE, '+inf') }
if states[1] == 'started' then
  local mark = call('HGET', CLAIMS .. runtimes[1], id)
  reply[7] = integer(math.max(0, shard.ms - made_at(mark)))
elseif states[1] == 'deferred' then
  local packed = call('HGET', HELD, id)
  local fits, _, _, _, holder = pcall(struct.unpack, HOLD, packed or '')
  reply[8] = fits and holder or ''
elseif states[1] == 'queued' then
  reply[9] = why_none_starts()
  if lane and lane ~= '' then
    if (call('HGET', LANES, lane) or '0') ~= '0' then reply[11] = lane end
    reply[10] = closed_limits()
  end
end
return reply
