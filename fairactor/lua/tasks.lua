-- Lists tasks of a state, of one tenant or of all, from a position.
--
-- KEYS  1 META of the shard
-- ARGV  1 'queued', 'started', 'deferred', 'scheduled', 'failed', or 'ended': finished or canceled
--       2 tenant, or '' for all; 3 actor as JSON text, or '': of failed tasks it need not look at those of others;
--       4 how many tasks at most, 5 1 for the newest failed tasks first, else 0, 6 1 for records, 0 for '' in their place,
--       7 position, or '' at the beginning
-- Reply {the position where the next call goes on, or '' if nothing is left; how many tasks it looked at; unix µs;
--       [id, tenant, first byte of the record, record, ms at which it is due or '', runtime or '', progress or '', position
--       behind it] ...}
--
-- Bounded: 3,000 fields, 500 kB of records by about one. A tenant with queued tasks in many lanes costs a look at their
-- names; started tasks at the names of all runtimes.
-- Reads only.

-- @include lib/intact.lua
-- @include lib/plugins.lua

local function scan_fields(key, cursor) return call('HSCAN', key, cursor, 'COUNT', 100) end

-- @include lib/walk.lua
-- @include lib/ended_tasks.lua

local state, tenant, actor = ARGV[1], ARGV[2], ARGV[3]
most, newest_first, reads_records = tonumber(ARGV[4]), ARGV[5] == '1' and state == 'failed', ARGV[6] == '1'
local start = ARGV[7] ~= '' and cmsgpack.unpack(ARGV[7])
local checks_tenant = false -- whether a place may have tasks of others

-- Goes over places, {name, ...} in the order of the names, from a position: {name of a place, position there}. `walk` gets
-- a place, the position there, and what makes one complete.
local function walk_places(places, position, wrap, walk)
  for _, place in ipairs(places) do
    local name = place[1]
    if not position or not is_before(name, position[1]) then
      local inner = position and position[1] == name and position[2]
      if walk(place, inner, function(there) return wrap({ name, there }) end) then return true end
    end
  end
  return false
end

local function walk_queued(name, position, wrap)
  local places = { { 'q', QUEUE .. name }, { 's', SUSPECTS .. name } }
  for _, lane in ipairs(shard.lanes and call('ZRANGE', LANES_OF .. name, 0, -1) or {}) do
    places[#places + 1] = { 'q' .. lane, mailbox(name, lane) }
  end
  table.sort(places, function(a, b) return is_before(a[1], b[1]) end)
  return walk_places(places, position, wrap, function(place, inner, wrap_inner)
    return walk_sorted(place[2], inner, wrap_inner)
  end)
end

local function walk_scheduled(name, position, wrap) return walk_sorted(DELAYED .. name, position, wrap, true) end

local function walk_started(position, wrap)
  local runtimes = {}
  for i, runtime in ipairs(call('ZRANGE', LEASES, 0, -1)) do runtimes[i] = { runtime } end
  table.sort(runtimes, function(a, b) return is_before(a[1], b[1]) end)
  return walk_places(runtimes, position, wrap, function(place, inner, wrap_inner)
    return walk_hash(CLAIMS .. place[1], inner, wrap_inner, function(id, mark, _, wrap_task)
      if tenant == '' or #mark > 65 and tenant_in(mark) == tenant then take(id, '', place[1], wrap_task(nil)) end
    end)
  end)
end

local function walk_deferred(position, wrap)
  if tenant ~= '' then
    load_counts({ tenant })
    if counts[tenant][DEFERRED] == 0 then return false end
  end
  return walk_hash(HELD, position, wrap, function(id, packed, _, wrap_task)
    local fits, _, _, name = pcall(struct.unpack, HOLD, packed)
    if tenant == '' or fits and name == tenant then take(id, '', '', wrap_task(nil)) end
  end)
end

local function walk_failed(position, wrap)
  checks_tenant = tenant ~= ''
  return walk_sorted(index_of_letters(tenant, actor), position, wrap)
end

local function walk_ended(position, wrap)
  return walk_list(tenant ~= '' and ENDED_OF .. tenant or ENDED_LAST, position, wrap)
end

-- Walks over the tenants that have tasks in a place of their own.
local function walk_tenants(position, wrap)
  return walk_hash(COUNTS, position, wrap, function(name, packed, inner, wrap_inner)
    local c = #packed == #NO_COUNTS and { struct.unpack(COUNTS_FORMAT, packed) } or { 1, 0, 0, 0, 0, 0, 1 }
    if state == 'queued' and live(c) > 0 then return walk_queued(name, inner, wrap_inner) end
    if state == 'scheduled' and c[WAITING] > 0 then return walk_scheduled(name, inner, wrap_inner) end
  end)
end

local function as_it_is(position) return position end
local more
if state == 'started' then
  more = walk_started(start, as_it_is)
elseif state == 'deferred' then
  more = walk_deferred(start, as_it_is)
elseif state == 'failed' then
  more = walk_failed(start, as_it_is)
elseif state == 'ended' then
  more = walk_ended(start, as_it_is)
elseif tenant == '' then
  local any = state == 'queued' and live(total) or total[WAITING]
  more = any > 0 and walk_tenants(start, as_it_is)
elseif state == 'queued' then
  more = walk_queued(tenant, start, as_it_is)
else
  more = walk_scheduled(tenant, start, as_it_is)
end

local FITTING = { failed = DEAD_STATE, ended = DONE .. CANCELED_STATE }
local ids, reply = {}, { more and cmsgpack.pack(stopped_at) or '', #found, integer(shard.wall) }
for i, task in ipairs(found) do ids[i] = task[1] end
local progress = state == 'started' and read_all('HMGET', PROGRESS, ids) or {}
for i, task in ipairs(found) do
  local record = call('GETRANGE', TASK .. task[1], 0, reads_records and -1 or 599)
  local can_be_read = readable(record)
  local name, fits = can_be_read and tenant_of(record) or '', #record > 0
  if can_be_read then
    fits = (FITTING[state] or LIVE):find(record:sub(1, 1), 1, true) and (not checks_tenant or name == tenant)
  elseif checks_tenant or state == 'ended' then
    fits = false -- nobody can tell whose it is
  end
  if fits then
    local due = task[2] ~= '' and integer(tonumber(task[2]) - math.floor(shard.behind / 1000)) or ''
    for _, part in ipairs({ task[1], name, record:sub(1, 1), reads_records and record or '', due, task[3],
      progress[i] or '', cmsgpack.pack(task[4]) }) do
      reply[#reply + 1] = part
    end
  end
end
return reply
