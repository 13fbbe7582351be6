-- Lists of tasks that have ended, for those who look at them: the last ones of each tenant and of the shard (not those
-- that have failed), and the dead letters of each tenant and of each actor. Nothing else depends on them.

-- @include lib/base.lua
-- @include lib/route.lua

local ended_ids, ended_names = {}, {} -- parallel lists
local longest_kept = 0 -- ms

-- Notes a task that has ended, and for how many ms its record is kept.
local function note_ended(id, name, ms)
  local n = #ended_ids + 1
  ended_ids[n], ended_names[n] = id, name
  if ms > longest_kept then longest_kept = ms end
end

-- Adds ids to a list, which keeps the last `most`: it is cut when it is a quarter longer.
local function add_to_list(key, ids, most)
  local length = 0
  for i = 1, #ids, SLICE do length = call('RPUSH', key, unpack(ids, i, math.min(i + SLICE - 1, #ids))) end
  if length > 1.25 * most then call('LTRIM', key, integer(-most), -1) end
end

-- Writes what was noted, unless the runtime that joined last keeps no such lists. The list of a tenant goes with its counts
-- (counts.lua), that of the shard expires with its last record.
local function write_ended_tasks()
  if #ended_ids == 0 then return end
  local most, of_tenant = tonumber(call('HGET', META, 'ended_index') or 0) or 0, {}
  if most < 1 then return end
  add_to_list(ENDED_LAST, ended_ids, most)
  if call('PTTL', ENDED_LAST) < longest_kept then call('PEXPIRE', ENDED_LAST, integer(longest_kept)) end
  for i, name in ipairs(ended_names) do
    local list = of_tenant[name]
    if list then
      list[#list + 1] = ended_ids[i]
    else
      of_tenant[name] = { ended_ids[i] }
    end
  end
  for name, list in pairs(of_tenant) do add_to_list(ENDED_OF .. name, list, most) end
end

-- Dead letters. DEAD has all; the index of a tenant or an actor has the same scores. An index expires with its last dead
-- letter, so what expires need not be looked for there. The field `letters` of META says how many of DEAD are in the
-- indexes. A release that knows no index changes DEAD alone; then the numbers differ, and index_letters.lua writes the
-- indexes anew.

local indexed_letters, removed_letters = {}, {} -- index -> score, id, ...; index -> ids: to write
local KEEP_LONGER = 1000 -- ms for which an index outlives its last dead letter

-- Returns the actor of a dead letter as JSON text; '' if it cannot be read. Only the first bytes of the record need be there.
local function actor_in_letter(record)
  local before = record:find('\n["', (select(7, struct.unpack(HEADER, record))), true)
  local route = before and text_from(record, before + 3)
  return route and route_fields(route)[1] or ''
end

local function add_to(lists, key, ...)
  local list = lists[key]
  if not list then
    list = {}
    lists[key] = list
  end
  for i = 1, select('#', ...) do list[#list + 1] = (select(i, ...)) end
end

local function index_letter(id, score, record)
  add_to(indexed_letters, DEAD_OF .. tenant_of(record), score, id)
  add_to(indexed_letters, DEAD_BY .. actor_in_letter(record), score, id)
end

-- Removes one from the indexes; that of its actor may keep it if the record is cut off.
local function remove_letter(id, record)
  add_to(removed_letters, DEAD_OF .. tenant_of(record), id)
  add_to(removed_letters, DEAD_BY .. actor_in_letter(record), id)
end

-- Changes DEAD, by ZADD or ZREM.
local function change_letters(command, args)
  local number = 0
  for i = 1, #args, SLICE do
    number = number + call(command, DEAD, unpack(args, i, math.min(i + SLICE - 1, #args)))
  end
  if number > 0 then call('HINCRBY', META, 'letters', command == 'ZADD' and number or -number) end
end

-- Writes the indexes. Each removes some that have expired.
local function write_letter_indexes()
  for key, flat in pairs(indexed_letters) do
    local old = call('ZRANGEBYSCORE', key, '-inf', integer(shard.now), 'LIMIT', 0, #flat)
    write_all('ZREM', key, old)
    write_all('ZADD', key, flat)
    local last = tonumber(call('ZRANGE', key, -1, -1, 'WITHSCORES')[2])
    call('PEXPIRE', key, integer(math.max(0, (last - shard.now) / 1000) + KEEP_LONGER))
  end
  for key, ids in pairs(removed_letters) do write_all('ZREM', key, ids) end
end

-- Whether the indexes have all dead letters.
local function are_letters_indexed()
  return (tonumber(call('HGET', META, 'letters') or 0) or -1) == call('ZCARD', DEAD)
end

-- Returns the key that has the dead letters of a tenant, or of an actor; perhaps others, too. '' is any.
local function index_of_letters(tenant, actor)
  if tenant == '' and actor == '' or not are_letters_indexed() then return DEAD end
  return tenant ~= '' and DEAD_OF .. tenant or DEAD_BY .. actor
end
