/* SQLCipher doing what `core store` does: durable inserts from many threads, then random reads. WAL, synchronous=FULL, a raw key
 * (so no key derivation is measured), statements prepared once, a connection a thread, a cache of 32 MiB as ours.
 * usage: sqlcipher FOLDER FILLED RECORDS WRITERS READS READERS BYTES PAGE
 * FILLED records are there before the clock starts; PAGE is 1024 (the default of version 3) or 4096 (of version 4). */
#include <pthread.h>
#include <sqlcipher/sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static char path[4096];
static uint64_t filled, records, reads;
static int writers, readers, bytes, page;
static pthread_barrier_t ready, done;

static void must(sqlite3 *db, int code, const char *step) {
    if (code == SQLITE_OK || code == SQLITE_DONE || code == SQLITE_ROW) return;
    fprintf(stderr, "sqlcipher: %s: %s\n", step, sqlite3_errmsg(db));
    exit(1);
}

static sqlite3 *opened(void) {
    sqlite3 *db;
    must(NULL, sqlite3_open(path, &db), "open");
    must(db, sqlite3_busy_timeout(db, 60000), "busy");
    char pragmas[512];
    snprintf(pragmas, sizeof pragmas,
        "PRAGMA key = \"x'2DD29CA851E7B56E4697B0E1F08507293D761A05CE4D1B628663F411A8086D99'\"; PRAGMA cipher_page_size = %d;"
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -32768;", page);
    must(db, sqlite3_exec(db, pragmas, NULL, NULL, NULL), "pragma");
    return db;
}

static void id_of(uint64_t number, unsigned char id[16]) {
    uint64_t spread = number * 0x9e3779b97f4a7c15ull;
    memset(id, 0, 16);
    for (int i = 0; i < 8; i++) id[i] = (unsigned char)(spread >> (56 - 8 * i));
}

/* Records from, from + step, ... below to. */
static void insert(sqlite3 *db, uint64_t from, uint64_t to, uint64_t step) {
    sqlite3_stmt *insert;
    must(db, sqlite3_prepare_v2(db, "INSERT INTO redacted VALUES (?, ?)", -1, &insert, NULL), "prepare");
    unsigned char id[16], *value = malloc((size_t)bytes);
    for (uint64_t number = from; number < to; number += step) {
        id_of(number, id);
        for (int at = 0; at < bytes; at++) value[at] = (unsigned char)(number * 31 + (uint64_t)at * 7);
        sqlite3_bind_blob(insert, 1, id, 16, SQLITE_STATIC);
        sqlite3_bind_blob(insert, 2, value, bytes, SQLITE_STATIC);
        must(db, sqlite3_step(insert), "insert");
        sqlite3_reset(insert);
    }
    sqlite3_finalize(insert);
    free(value);
}

static void *write_all(void *argument) {
    sqlite3 *db = opened();
    pthread_barrier_wait(&ready);
    insert(db, filled + (uint64_t)(uintptr_t)argument, filled + records, (uint64_t)writers);
    pthread_barrier_wait(&done);
    sqlite3_close(db);
    return NULL;
}

static void *read_all(void *argument) {
    uint64_t chance = 0x9e3779b97f4a7c15ull ^ ((uint64_t)(uintptr_t)argument + 1);
    sqlite3 *db = opened();
    sqlite3_stmt *select;
    must(db, sqlite3_prepare_v2(db, "SELECT value FROM redacted WHERE id = ?", -1, &select, NULL), "prepare");
    unsigned char id[16];
    pthread_barrier_wait(&ready);
    for (uint64_t i = 0; i < reads / (uint64_t)readers; i++) {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        id_of(chance % (filled + records), id);
        sqlite3_bind_blob(select, 1, id, 16, SQLITE_STATIC);
        if (sqlite3_step(select) != SQLITE_ROW || sqlite3_column_bytes(select, 0) != bytes) must(db, SQLITE_ERROR, "select");
        sqlite3_reset(select);
    }
    pthread_barrier_wait(&done);
    sqlite3_finalize(select);
    sqlite3_close(db);
    return NULL;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Connections are opened before the clock starts and closed (with their checkpoint) after it stops. */
static double timed(int threads, void *(*work)(void *)) {
    pthread_t ids[64];
    pthread_barrier_init(&ready, NULL, (unsigned)threads + 1);
    pthread_barrier_init(&done, NULL, (unsigned)threads + 1);
    for (int i = 0; i < threads; i++) pthread_create(&ids[i], NULL, work, (void *)(uintptr_t)i);
    pthread_barrier_wait(&ready);
    double began = seconds();
    pthread_barrier_wait(&done);
    double took = seconds() - began;
    for (int i = 0; i < threads; i++) pthread_join(ids[i], NULL);
    return took;
}

int main(int argc, char **argv) {
    if (argc != 9) return 2;
    snprintf(path, sizeof path, "%s/peer.db", argv[1]);
    filled = strtoull(argv[2], NULL, 10);
    records = strtoull(argv[3], NULL, 10);
    writers = atoi(argv[4]);
    reads = strtoull(argv[5], NULL, 10);
    readers = atoi(argv[6]);
    bytes = atoi(argv[7]);
    page = atoi(argv[8]);
    sqlite3 *db = opened();
    must(db, sqlite3_exec(db, "CREATE TABLE redacted (id BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID", NULL, NULL, NULL), "create");
    must(db, sqlite3_exec(db, "BEGIN", NULL, NULL, NULL), "begin");
    insert(db, 0, filled, 1);
    must(db, sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), "commit");
    double inserting = timed(writers, write_all);
    double reading = timed(readers, read_all);
    sqlite3_stmt *version;
    sqlite3_prepare_v2(db, "PRAGMA cipher_version", -1, &version, NULL);
    const char *told = sqlite3_step(version) == SQLITE_ROW ? (const char *)sqlite3_column_text(version, 0) : "?";
    printf("{\"inserts_per_s\": %.1f, \"reads_per_s\": %.1f, \"version\": \"%s (SQLite %s)\"}\n", (double)records / inserting,
           (double)reads / reading, told, sqlite3_libversion());
    sqlite3_finalize(version);
    sqlite3_close(db);
    return 0;
}
