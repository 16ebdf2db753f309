//! Why something was refused or dropped: two closed lists, so that every loss has a name.
//!
//! In: nothing. Out: small `Copy` enums whose words are label values of
//! `hydrograph_rejected_total{reason}` and `hydrograph_dropped_total{edge,reason}`.

/// Declares an enum with its words and explanations, so that no variant can lack either.
macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal, $hint:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every reason, in the order of its code.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = $name::ALL.len();

            /// The label value.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }

            /// One sentence for a person: what was wrong and what would be right.
            pub fn hint(self) -> &'static str {
                match self { $($name::$variant => $hint,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

reasons! {
    /// Why an input (line, event) was refused before it became samples.
    RejectReason {
        /// No `:` or no `|`, or nothing before them.
        Malformed = "malformed", "expected name:value|type";
        /// The name is empty.
        EmptyName = "empty_name", "the metric has no name";
        /// The name is longer than 200 bytes.
        NameTooLong = "name_too_long", "metric names have at most 200 bytes";
        /// The type letters are none of `c g ms h d s`.
        UnknownType = "unknown_type", "types are c, g, ms, h, d and s";
        /// A value is not a number.
        BadValue = "bad_value", "not a number; values are packed with \":\", as in 1:2";
        /// NaN or infinity.
        NotFinite = "not_finite", "NaN and infinity are not values";
        /// A negative value where none can be.
        Negative = "negative", "counters and timings cannot be negative";
        /// Beyond ±10^18 in value.
        OutOfRange = "out_of_range", "values lie within ±10^18";
        /// The rate is outside (0, 1] or below 2^-20.
        BadRate = "bad_rate", "a sample rate lies in (0, 1] and is at least 2^-20";
        /// The timestamp is not a positive whole number of seconds.
        BadTimestamp = "bad_timestamp", "T takes whole seconds since the epoch";
        /// `+n` or `-n` on a gauge together with a timestamp (V6).
        GaugeOperationWithTime = "gauge_operation_with_time", "a relative gauge has no time of its own";
        /// Bytes that are not UTF-8 where text is needed.
        InvalidUtf8 = "invalid_utf8", "names and tags are UTF-8";
        /// More than 64 labels.
        TooManyLabels = "too_many_labels", "a series has at most 64 labels";
        /// A label key over 200 bytes or a value over 1 KiB.
        LabelTooLong = "label_too_long", "label keys have at most 200 bytes, label values 1 KiB";
        /// `le`, `quantile`, `overflow` or a key that begins with `__`.
        ReservedLabel = "reserved_label", "le, quantile, overflow and __* are reserved";
        /// A declared metric without one of its labels, or a handle with another set.
        LabelMismatch = "label_mismatch", "the labels are not the declared ones";
        /// Another type than the name already has, or a clash in OpenMetrics.
        TypeConflict = "type_conflict", "the name already has another type";
        /// A datagram or frame over the limit.
        Oversize = "oversize", "the datagram or frame is longer than the buffer";
        /// A stream frame that ended early or a length that cannot be.
        BadFrame = "bad_frame", "the stream ended inside a frame";
        /// A malformed `_e{..}` event or `_sc` service check.
        BadEvent = "bad_event", "expected _e{title,text}:title|text or _sc|name|status";
        /// JSON, which this version does not read yet.
        UnsupportedFormat = "unsupported_format", "only DogStatsD and StatsD lines are read here";
        /// A typed event that no schema names.
        UnknownEvent = "unknown_event", "no [events.NAME] of the pipeline file names it";
        /// An event without a name where the source does not fix one.
        NoEvent = "no_event", "the event has no key \"event\"";
        /// A field that is not marked `?` is missing or null.
        MissingField = "missing_field", "a field without \"?\" must be there";
        /// A field holds another type than the schema says.
        WrongType = "wrong_type", "the field holds another type than the schema says";
        /// A key that no field names, where the source refuses those.
        ExtraField = "extra_field", "no field has this key, and the source says extra_fields = \"error\"";
        /// A key that came twice.
        DuplicateField = "duplicate_field", "a key stands in an event once";
        /// Not JSON, or no object.
        BadJson = "bad_json", "expected one JSON object";
        /// A weight outside [1, 2^20].
        BadWeight = "bad_weight", "a weight lies from 1 to 1048576 (2^20)";
        /// A rule of the source's mapping file says `action: drop`.
        DroppedByMapping = "dropped_by_mapping", "the mapping file drops this name";
        /// A new name past the number of metrics that one pipeline may have.
        TooManyMetrics = "too_many_metrics", "names are metrics; put what varies into a tag";
    }
}

reasons! {
    /// Why a sample that had been accepted was dropped.
    DropReason {
        /// Older than its source's clock − `accept_late`, or than everything kept (T1).
        TooLate = "too_late", "older than accept_late";
        /// More than `max_future` ahead of the wall clock (T1).
        TooEarly = "too_early", "further ahead than max_future";
        /// A gauge past a series limit (S3).
        SeriesLimit = "series_limit", "limits.series, series_per_metric or the bytes of their labels are used up";
        /// A full queue with policy `drop_newest`.
        QueueFull = "queue_full", "the queue was full";
        /// The store could not commit and `limits.pending` was reached (C4).
        Pending = "pending", "limits.pending reached while the store could not commit";
        /// A start or end of a pair past the number of pairs that may be open.
        PairLimit = "pair_limit", "limits.pairs are open; do their ends come, and is timeout short enough?";
        /// A relative gauge operation left the range of gauges.
        OutOfRange = "out_of_range", "values lie within ±10^18";
        /// Input of an older incarnation of its source (C2).
        Incarnation = "incarnation", "an older incarnation of the source";
        /// Still queued when the pipeline had to stop.
        Stopped = "stopped", "the pipeline was stopped";
    }
}
