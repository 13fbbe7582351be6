-- How many bytes of records the reply to a turn may have, and how long it may choose tasks.
--
-- A turn claims nothing more once its bytes are used. A record that does not fit is cut off, and its runtime reads the rest
-- in pieces (pieces.lua).
--
-- Records are measured only if the largest one of the shard, so many times, could be too much.
--
-- A turn takes as many outcomes and claims as are `sure`, whatever time that needs, and more while it is fast. In the scripts
-- of some servers TIME stands still, and others lack os.clock. Without a clock that goes on, a turn takes no more.

-- @include lib/base.lua

local BEGINNING, SHORT_BEGINNING = 2400, 15 -- bytes of a record that is cut off: with its route, or without its tenant
local most_bytes, room_for_bytes = 0, 0 -- of the reply: in all, and what is left
local claimed_bytes, measures = 0, false
local sizes = {} -- task -> the bytes of its record, if they are measured
local cut = {} -- task, bytes of its record, ...: those that are cut off

local STEP = 50 -- outcomes or claims that it takes before it looks at the clock again
local sure, most_time, began_at_time = 0, 0, false -- µs; false: the turn is too small to need a clock
local clock
local out_of_time = false

local function processor_time() return os.clock() * 1e6 end
local function server_time()
  local time = call('TIME')
  return time[1] * 1e6 + time[2]
end

-- Sets for how many µs a turn may choose what it takes beyond what is sure.
local function limit_time(most)
  most_time, clock = most, pcall(processor_time) and processor_time or server_time
  began_at_time = clock()
end

-- Whether less than a part of the time has passed.
local function has_time(part)
  local took = began_at_time and clock() - began_at_time or 0
  return took > 0 and took < part * most_time
end

-- Sets the most bytes of a reply with up to `n` records.
local function limit_bytes(most, n)
  most_bytes, room_for_bytes, measures = most, most, n * shard.largest > most
end

-- Counts the record of a task that is claimed.
local function weigh(id)
  if not measures then return end
  sizes[id] = rewritten[id] and #rewritten[id] or call('STRLEN', TASK .. id)
  claimed_bytes = claimed_bytes + sizes[id]
end

-- Returns the records of tasks for the reply; false for each that is lost or unreadable. Of what is cut off, it has `head`
-- bytes.
local function read_for_reply(ids, head)
  local records, whole, numbers = {}, {}, {}
  if not measures then
    records = read_records(ids)
    for _, record in ipairs(records) do note_size(record and #record or 0) end
    return records
  end
  for i, id in ipairs(ids) do
    if not sizes[id] then weigh(id) end
    note_size(sizes[id])
    if sizes[id] <= math.max(room_for_bytes, head) then
      whole[#whole + 1], numbers[#numbers + 1] = id, i
      room_for_bytes = room_for_bytes - sizes[id]
    else
      local record = rewritten[id] and rewritten[id]:sub(1, head) or call('GETRANGE', TASK .. id, 0, head - 1)
      records[i] = (head == SHORT_BEGINNING or readable(record)) and record
      cut[#cut + 1], cut[#cut + 2] = id, sizes[id]
      room_for_bytes = room_for_bytes - #record
    end
  end
  for j, record in ipairs(read_records(whole)) do records[numbers[j]] = record end
  return records
end
