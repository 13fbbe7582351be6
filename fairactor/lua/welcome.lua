-- Prepares the new shard of a tenant that moves, and serves the tenant there once all its tasks have arrived.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant,
--       2 'arriving': its tasks are accepted from now on, and not started, unless it is served here already; 'late': also if
--       it is; 'served': all have arrived,
--       3 its policy, packed, or '', 4 µs that it has to wait by its rate,
--       5 and on: for each limit of which it has an instance its name, and µs until what was taken of that is paid for
-- Reply 'arriving' or 'served', as it is now
--
-- Safe to repeat: a tenant that is served stays so.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/replace_policy.lua

local name, wish, rate_waits = ARGV[1], ARGV[2], tonumber(ARGV[4])
local packed = call('HGET', POLICY, name)
local before = packed and cmsgpack.unpack(packed) or {}
local is_served = before.moving ~= 'arriving' and (packed or call('HEXISTS', COUNTS, name) == 1)
if is_served and wish ~= 'late' or wish == 'served' and before.moving ~= 'arriving' then return 'served' end

local policy = wish == 'arriving' and ARGV[3] ~= '' and cmsgpack.unpack(ARGV[3]) or {}
if wish ~= 'arriving' then policy = before end
policy.moving = wish ~= 'served' and 'arriving' or nil
local function debt_until(stored, us) return integer(math.max(tonumber(stored or 0), shard.now + us)) end
local dues = {}
for i = 5, #ARGV, 2 do
  local field, us = ARGV[i] .. '\31' .. name, tonumber(ARGV[i + 1])
  if us > 0 then dues[#dues + 1], dues[#dues + 2] = debt_until(call('ZSCORE', LIMIT_DUES, field), us), field end
end
local t = replace_tenant(name, policy)
if rate_waits > 0 and t[LIMITS] then t[LIMITS].due = math.max(t[LIMITS].due, shard.now + rate_waits) end

begin_writing()
write_all('ZADD', LIMIT_DUES, dues)
write_policy(name, policy, t, replaced)
save_counts()
save_shard()
return policy.moving or 'served'
