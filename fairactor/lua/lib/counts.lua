-- Counts of tasks, by tenant and of the whole shard.
--
-- A tenant's counts are one packed string. Live tasks, queued or started, are counted by priority; how many of
-- them are queued is the length of the mailbox, and the others have started. So a claim changes no count.

-- @include lib/base.lua

-- What a counts array holds; 1 to 6: live tasks by priority.
local WAITING, DEFERRED, FINISHED, FAILED, CANCELED = 7, 8, 9, 10, 11
local MAX_SECONDS = 4294967295
local KEEP_UNTIL = 12 -- until when (unix seconds) the totals outlive the last task

-- Counts of live tasks are small, those of ended ones may grow for years. The first 5 bytes make it longer than 64, so
-- that the server does not search through a list (see base.lua).
local COUNTS_FORMAT = '>xxxxxI4I4I4I4I4I4I4I4dddI4'
local NO_COUNTS = string.rep('\0', 65)
local ENDED = { [DONE] = FINISHED, [DEAD_STATE] = FAILED, [CANCELED_STATE] = CANCELED }

local counts = {}
local total = { struct.unpack(COUNTS_FORMAT, shard.total or NO_COUNTS) }

local function live(c) return c[1] + c[2] + c[3] + c[4] + c[5] + c[6] end
local function pack_counts(c) return struct.pack(COUNTS_FORMAT, unpack(c, 1, KEEP_UNTIL)) end

local was_busy = live(total) > 0

-- Reads the counts of those of `names` that are not here yet. What is here will be written by `save_counts`.
local function load_counts(names)
  local missing = {}
  for _, name in ipairs(names) do
    if not counts[name] then
      counts[name] = true
      missing[#missing + 1] = name
    end
  end
  local packed = read_all('HMGET', COUNTS, missing)
  for i, name in ipairs(missing) do counts[name] = { struct.unpack(COUNTS_FORMAT, packed[i] or NO_COUNTS) } end
end

-- Counts `n` tasks more: live at a priority, WAITING or DEFERRED.
local function add(name, index, n)
  local c = counts[name]
  c[index] = c[index] + n
  total[index] = total[index] + n
end

-- Keeps totals as long as a record that is kept.
local function keep_totals(c, ttl_ms)
  c[KEEP_UNTIL] = math.max(c[KEEP_UNTIL], math.min(math.ceil(shard.now / 1e6 + ttl_ms / 1000), MAX_SECONDS))
end

-- Counts a task that has ended, and keeps the tenant's totals as long as its record is kept.
local function add_ended(name, state, ttl_ms)
  add(name, ENDED[state], 1)
  if ttl_ms > 0 then keep_totals(counts[name], ttl_ms) end
end

-- Writes the counts that were loaded; those of a tenant with no task and no totals to keep go.
local function save_counts()
  local keep, drop, drained = {}, {}, {}
  for name, c in pairs(counts) do
    local gone = live(c) + c[WAITING] + c[DEFERRED] == 0
    if gone and c[KEEP_UNTIL] * 1e6 <= shard.now then
      drop[#drop + 1] = name
    else
      keep[#keep + 1], keep[#keep + 2] = name, pack_counts(c)
      if gone then drained[#drained + 1], drained[#drained + 2] = integer(c[KEEP_UNTIL]), name end
    end
  end
  write_all('HSET', COUNTS, keep)
  write_all('HDEL', COUNTS, drop)
  write_all('ZADD', DRAINED, drained)
end

-- @scope
