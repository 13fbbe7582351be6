-- Ends tasks that have waited for too long for a runtime that can run them.
--
-- KEYS  1 META of the shard
-- ARGV  1 lane, 2 ms for which they wait, 3 ms to keep their records, 4 their outcome
-- Reply {{ids of the tasks that ended}, 1 if there may be more}
--
-- Safe to repeat: it acts on what is due at that moment.

-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/ring.lua
-- @include lib/ending.lua

local TENANTS, DEPTH = 20, 50 -- the tenants to look at, and the tasks of each
local BYTES = 500000 -- of records in a call, by about one record
local lane, ttl, keep, outcome = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local since = tonumber(call('HGET', LANES, lane) or nil)
if not since or since == 0 or since + ttl > shard.ms then return { {}, 0 } end

local names = call('ZRANGE', IN_LANE .. lane, 0, TENANTS - 1)
load_counts(names)
load_tenants(names)
local function has_gone(name) return tenants[name][LIMITS] and tenants[name][LIMITS].gone end -- these tasks move
local ended, by_tenant, bytes, has_more = {}, {}, 0, #names == TENANTS
for _, name in ipairs(names) do
  local ids = call('ZRANGE', mailbox(name, lane), 0, DEPTH - 1)
  local due = {}
  for _, id in ipairs(ids) do
    local header = not has_gone(name) and bytes < BYTES and call('GETRANGE', TASK .. id, 0, 599) -- records may be large
    if header and readable(header) then
      local stamp = select(5, struct.unpack(HEADER, header))
      if math.max(stamp / 1000, since) + ttl <= shard.ms then
        local record = call('GET', TASK .. id)
        due[#due + 1], ended[#ended + 1] = id, { id, name, record }
        bytes = bytes + #record
      end
    end
  end
  by_tenant[name] = due
  has_more = has_more or #ids == DEPTH or bytes >= BYTES
end
local ids = {}
for i, task in ipairs(ended) do ids[i] = task[1] end
load_watchers(ids)
for _, task in ipairs(ended) do
  local id, name, record = unpack(task)
  add(name, record:byte(3), -1)
  end_task(id, name, DEAD_STATE, record_ttl(id, DEAD_STATE, keep), ended_record(record, DEAD_STATE, outcome))
end
for name, due in pairs(by_tenant) do count_withdrawn(name, #due, lane) end
run_ends_hook()
update_ring(arriving)

begin_writing()
write_ends()
for name, due in pairs(by_tenant) do
  write_all('ZREM', mailbox(name, lane), due)
  call('ZADD', IN_LANE .. lane, 'XX', integer(shard.ms), name) -- others come first next time
end
save_counts()
save_shard()
return { ids, has_more and #ids > 0 and 1 or 0 }
